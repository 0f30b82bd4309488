//! The packets of a trace, a story each.

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::explain::explanation;
use super::style::Style;
use super::words::{count, number, span};
use crate::explain::Explanation;
use crate::policy::names::InterfaceName;

/// Turns what became of packets into stories.
#[derive(Debug)]
pub struct StoryLines {
    style: Style,
    zone: TimeZone,
}

impl StoryLines {
    /// Stories with the time of day where the user is.
    pub fn new(style: Style) -> Self {
        Self {
            style,
            zone: TimeZone::system(),
        }
    }

    /// The story of a packet: when, and then as it is explained.
    pub fn story(&self, time: Timestamp, told: &Explanation) -> String {
        let time = time.to_zoned(self.zone.clone());
        format!(
            "{}  {}\n",
            time.strftime("%H:%M:%S%.3f"),
            explanation(told, self.style)
        )
    }
}

/// What is traced, and for how long.
pub fn trace_begun(
    interface: &InterfaceName,
    peer: IpNet,
    port: Option<u16>,
    seconds: u64,
) -> String {
    let peer = match peer.prefix_len() == peer.max_prefix_len() {
        true => peer.addr().to_string(),
        false => peer.to_string(),
    };
    let port = port.map_or_else(String::new, |port| format!(", port {port}"));
    format!(
        "tracing {interface} for {}: packets from and to {peer}{port}; Ctrl-C ends it\n\n",
        span(seconds)
    )
}

/// How much was told.
pub fn trace_ended(told: u64, left_out: u64) -> String {
    let told = count(usize::try_from(told).unwrap_or(usize::MAX), "packet");
    match left_out {
        0 => format!("{told} told, none left out\n"),
        left_out => format!(
            "{told} told, {} left out: they came faster than they could be told\n",
            number(left_out)
        ),
    }
}
