//! Why a connection does not come about.

use super::explain::remedy;
use super::style::Style;
use super::words::count;
use crate::diagnose::{Answer, Diagnosis, DroppedAt, Transport};

/// The answer, and what it rests on.
pub fn diagnosis(found: &Diagnosis, transport: Transport, style: Style) -> String {
    let word = match found.answer {
        Answer::Fine => style.good("fine"),
        Answer::Refused => style.changed("refused"),
        Answer::Dropped => style.bad("dropped"),
        Answer::NoAnswer => style.bad("no answer"),
        Answer::Unreachable => style.bad("unreachable"),
        Answer::NotSent => style.bad("not sent"),
        Answer::NoNeighbour => style.bad("no neighbour"),
        Answer::AnswerLost => style.bad("answer lost"),
        Answer::TooBig => style.bad("too big"),
    };
    let transport_name = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let title = style.title(&format!("{transport_name} to {}", found.address));
    let mut text = format!("{word}  {title}\n");
    for sentence in sentences(found, transport) {
        text.push_str(&format!("  {sentence}\n"));
    }
    let found = found.dropped.as_ref();
    text.extend(
        found
            .and_then(|dropped| dropped.remedy.as_ref())
            .map(remedy),
    );
    text
}

fn sentences(found: &Diagnosis, transport: Transport) -> Vec<String> {
    let mut sentences = Vec::new();
    let waited = match found.waited_ms {
        0..1_000 => format!("{} ms", found.waited_ms),
        ms => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
    };
    let seconds = waited.as_str();
    match (&found.interface, found.answer) {
        (_, Answer::Dropped | Answer::NotSent) | (None, Answer::Unreachable) => {}
        (Some(interface), _) => {
            sentences.push(format!(
                "{interface}'s groups allow the connection and its replies"
            ));
        }
        (None, _) => sentences.push("sg does not protect the interface it leaves by".to_owned()),
    }
    match found.answer {
        Answer::Fine => sentences.push(format!("answered after {seconds}")),
        Answer::Refused => {
            sentences.push(format!(
                "connection refused after {seconds}: nothing listens on port {}",
                found.address.port()
            ));
            sentences.push("start the service, or look for a filter that rejects".to_owned());
        }
        Answer::Dropped => {
            sentences.extend(found.dropped.as_ref().map(dropped).into_iter().flatten())
        }
        Answer::NoAnswer => {
            let left = match found.sent {
                Some(1) => "1 packet left this machine, and ".to_owned(),
                Some(sent) => format!("{sent} packets left this machine, and "),
                None => String::new(),
            };
            sentences.push(format!("{left}nothing came back in {seconds}"));
            sentences.push("look for a filter elsewhere, or a machine that is down".to_owned());
            if transport == Transport::Udp {
                sentences.push(
                    "a UDP service does not have to answer a request that it does not understand"
                        .to_owned(),
                );
            }
        }
        Answer::Unreachable => {
            let said = found.system.as_deref().unwrap_or("no route");
            sentences.push(format!("it cannot be sent there: {said}"));
        }
        Answer::NotSent => {
            sentences.push("no packet of it left this machine, and sg dropped none".to_owned());
            sentences.extend(found.system.clone());
            sentences.push(
                "look for a filter of this machine that drops or rejects it: `nft list ruleset`, \
                 `iptables-save`"
                    .to_owned(),
            );
        }
        Answer::NoNeighbour => {
            let next = found.next_hop.unwrap_or(found.address.ip());
            sentences.push(format!(
                "{next} does not answer on the link, so no packet could be sent (`ip neigh`)"
            ));
            sentences.push("look whether that machine is up and on this network".to_owned());
        }
        Answer::AnswerLost => {
            sentences.push("an answer came, and this machine dropped it; sg did not".to_owned());
            sentences.push(match found.reverse_path_drops {
                0 => "look for a filter of this machine that drops what it receives: `nft list \
                      ruleset`, `iptables-save`"
                    .to_owned(),
                drops => format!(
                    "rp_filter dropped {} meanwhile: this machine would send to that address by \
                     another device (`sysctl net.ipv4.conf.all.rp_filter`)",
                    count(usize::try_from(drops).unwrap_or(usize::MAX), "packet")
                ),
            });
        }
        Answer::TooBig => {
            sentences.push(format!("answered after {seconds}"));
            let mtu = found.mtu.unwrap_or_default();
            sentences.push(format!(
                "packets of {mtu} bytes are lost on the way, small ones are not, and no ICMP error says \
                 so: connections hang when they have much to send"
            ));
            sentences.push(
                "let ICMP errors through where they are filtered, or give the device a smaller mtu \
                 (`ip link set DEVICE mtu 1400`)"
                    .to_owned(),
            );
        }
    }
    for full in &found.full {
        sentences.push(full.found());
        sentences.push(format!("to make room: {}", full.remedy()));
    }
    if !matches!(found.answer, Answer::Fine | Answer::Dropped) {
        for drop in &found.counted {
            sentences.push(format!(
                "meanwhile {} at {} dropped {} ({})",
                drop.direction,
                drop.interface,
                count(
                    usize::try_from(drop.packets).unwrap_or(usize::MAX),
                    "packet"
                ),
                drop.reason
            ));
        }
    }
    sentences
}

fn dropped(at: &DroppedAt) -> [String; 2] {
    let place = match &at.netns {
        Some(netns) => format!("{} (in {netns})", at.interface),
        None => at.interface.to_string(),
    };
    [
        format!(
            "groups on this machine drop it: {} at {place}",
            at.direction
        ),
        format!("{}: {}", at.reason, at.sentence),
    ]
}
