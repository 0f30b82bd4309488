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
        (_, Answer::Dropped) | (None, Answer::Unreachable) => {}
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
            sentences.push(format!("nothing came back in {seconds}"));
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
