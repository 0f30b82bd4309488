//! Filters of a device's clsact queueing discipline, for kernels without TCX links.
//!
//! A filter belongs to its device and not to a descriptor: it stays until it is deleted. Each
//! instance of sg has its own handle at the first priority, so that its filter is found again, runs
//! before those of others, and is replaced in one step: `cls_bpf_change` puts the new program where
//! the old one is (<https://github.com/torvalds/linux/blob/v6.1/net/sched/cls_bpf.c>). clsact is
//! there since Linux 4.5.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;

use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
    TcU32OptionFlags,
};

use super::netlink::{acknowledged, io_error, with_handle};
use super::verify::Way;
use crate::interfaces::{self, Netns};

/// Filters run in the order of their priorities, of which this is the first.
const PRIORITY: u16 = 1;

/// `ETH_P_ALL`, as the network orders its bytes.
const EVERY_PROTOCOL: u16 = 3_u16.to_be();

/// The kind of queueing discipline, and of filter.
const CLSACT: &str = "clsact";
const BPF: &str = "bpf";

/// Where a device's packets are given to filters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) netns: &'a Netns,
    pub(super) ifindex: u32,
}

/// A filter that packets are given to, sg's or another program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) handle: u32,
    pub(super) priority: u16,
    protocol: u16,
    /// `bpf`, `u32`, `flower` and the like.
    pub(super) kind: String,
    /// The kernel's number of a program; other kinds of filters have none.
    pub(super) program: Option<u32>,
}

impl Filter {
    /// Whether it is the one that [`Place::put`] makes for an instance.
    pub(super) fn is_of(&self, handle: u32) -> bool {
        self.handle == handle && self.priority == PRIORITY && self.is_like_ours()
    }

    /// A priority has one kind and one protocol.
    fn is_like_ours(&self) -> bool {
        self.kind == BPF && self.protocol == EVERY_PROTOCOL
    }
}

/// Why a question or a change failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel refuses.
    Kernel {
        doing: &'static str,
        source: io::Error,
    },
    /// The namespace cannot be entered.
    Netns(interfaces::Error),
}

/// Why a filter could not be put in place.
#[derive(Debug)]
pub(super) enum Refused {
    /// The device has a queueing discipline of another kind where clsact would be.
    Occupied(String),
    /// Filters of another kind or protocol have the first priority.
    Taken(Filter),
    /// For another reason.
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The handle of an instance's filters: two that protect one device have different ones.
pub(super) fn handle(run: &Path) -> u32 {
    let bytes = run.as_os_str().as_encoded_bytes().iter();
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    // "sg", and what tells instances apart.
    0x7367 << 16 | (hash >> 16 ^ hash & 0xffff)
}

impl Place<'_> {
    /// The filters of one way, in the order in which they run.
    pub(super) fn filters(&self, way: Way) -> Result<Vec<Filter>, Failure> {
        let ifindex = self.index();
        self.ask("list the filters", async move |handle| {
            list(&handle, ifindex, way).await
        })
    }

    /// The kernel's number of the program that the instance's filter runs.
    pub(super) fn program(&self, way: Way, handle: u32) -> Result<Option<u32>, Failure> {
        let filters = self.filters(way)?;
        let ours = filters.iter().find(|filter| filter.is_of(handle));
        Ok(ours.and_then(|filter| filter.program))
    }

    /// Makes sure that the device has a clsact; whether it is new.
    pub(super) fn add_clsact(&self) -> Result<bool, Refused> {
        let ifindex = self.index();
        let made = self.ask("add the clsact queueing discipline", async move |handle| {
            let message = RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex));
            match acknowledged(handle, message, NLM_F_CREATE | NLM_F_EXCL).await {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        if made {
            return Ok(true);
        }
        // An `ingress` discipline would take a filter for sent packets, and run it for received ones.
        match self.discipline()? {
            Some(kind) if kind != CLSACT => Err(Refused::Occupied(kind)),
            _ => Ok(false),
        }
    }

    /// Takes the clsact away, unless filters are left in it.
    pub(super) fn remove_unused_clsact(&self) -> Result<(), Failure> {
        let ifindex = self.index();
        let is_used = self.ask("list the filters", async move |handle| {
            let received = list_all(&handle, ifindex, Way::Received).await?;
            let sent = list_all(&handle, ifindex, Way::Sent).await?;
            Ok(!received.is_empty() || !sent.is_empty())
        })?;
        if is_used || self.discipline()?.as_deref() != Some(CLSACT) {
            return Ok(());
        }
        self.ask(
            "remove the clsact queueing discipline",
            async move |handle| {
                let message = RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex));
                acknowledged(handle, message, 0).await
            },
        )
    }

    /// Has the instance's filter run a program. Where there is such a filter, packets meet the old
    /// program until they meet the new one.
    pub(super) fn put(
        &self,
        way: Way,
        handle: u32,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> Result<(), Refused> {
        let mut message = self.ours(way, handle);
        let options = [
            TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs()),
            TcFilterBpfOption::ProgName(name.to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
            // The maps are here, and not in the device.
            TcFilterBpfOption::FlagsGeneric(TcU32OptionFlags::SkipHw),
        ];
        message.attributes = vec![
            TcAttribute::Kind(BPF.to_owned()),
            TcAttribute::Options(options.map(TcOption::Bpf).to_vec()),
        ];
        let put = self.ask("add a filter", async move |handle| {
            let message = RouteNetlinkMessage::NewTrafficFilter(message);
            acknowledged(handle, message, NLM_F_CREATE | NLM_F_REPLACE).await
        });
        match put {
            Err(Failure::Kernel { doing, source }) if is(&source, Errno::EINVAL) => {
                let filters = self.filters(way)?.into_iter();
                let mut first = filters.filter(|filter| filter.priority == PRIORITY);
                Err(match first.find(|filter| !filter.is_like_ours()) {
                    Some(filter) => Refused::Taken(filter),
                    None => Failure::Kernel { doing, source }.into(),
                })
            }
            put => Ok(put?),
        }
    }

    /// Deletes the instance's filter, if it is there.
    pub(super) fn remove(&self, way: Way, handle: u32) -> Result<(), Failure> {
        if self.program(way, handle)?.is_none() {
            return Ok(());
        }
        let message = self.ours(way, handle);
        self.ask("delete a filter", async move |handle| {
            let message = RouteNetlinkMessage::DelTrafficFilter(message);
            acknowledged(handle, message, 0).await
        })
    }

    /// What kind of queueing discipline the device has where clsact is.
    fn discipline(&self) -> Result<Option<String>, Failure> {
        let ifindex = self.index();
        self.ask("list the queueing disciplines", async move |handle| {
            let all = handle.qdisc().get().execute();
            let all: Vec<TcMessage> = all.try_collect().await.map_err(io_error)?;
            let is_there = |found: &&TcMessage| {
                (found.header.index, found.header.parent) == (ifindex, TcHandle::CLSACT)
            };
            Ok(all
                .iter()
                .find(is_there)
                .and_then(|found| kind(&found.attributes)))
        })
    }

    fn ours(&self, way: Way, handle: u32) -> TcMessage {
        let mut message = TcMessage::with_index(self.index());
        message.header.parent = parent(way);
        message.header.handle = handle.into();
        message.header.info = u32::from(PRIORITY) << 16 | u32::from(EVERY_PROTOCOL);
        message
    }

    fn index(&self) -> i32 {
        self.ifindex.cast_signed()
    }

    fn ask<T: Send>(
        &self,
        doing: &'static str,
        work: impl AsyncFnOnce(Handle) -> io::Result<T> + Send,
    ) -> Result<T, Failure> {
        with_handle(self.netns, work)
            .map_err(Failure::Netns)?
            .map_err(|source| Failure::Kernel { doing, source })
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

fn parent(way: Way) -> TcHandle {
    TcHandle {
        minor: match way {
            Way::Received => TcHandle::MIN_INGRESS,
            Way::Sent => TcHandle::MIN_EGRESS,
        },
        ..TcHandle::CLSACT
    }
}

fn clsact(ifindex: i32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        minor: 0,
        ..TcHandle::CLSACT
    };
    message.attributes = vec![TcAttribute::Kind(CLSACT.to_owned())];
    message
}

fn kind(attributes: &[TcAttribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}

/// The filters that packets come to without being sent there by another one: those of chain 0.
async fn list(handle: &Handle, ifindex: i32, way: Way) -> io::Result<Vec<Filter>> {
    let all = list_all(handle, ifindex, way).await?.into_iter();
    let is_first = |message: &TcMessage| {
        let mut attributes = message.attributes.iter();
        !attributes.any(|attribute| matches!(attribute, TcAttribute::Chain(chain) if *chain != 0))
    };
    Ok(all
        .filter(is_first)
        .map(|message| filter(&message))
        .collect())
}

/// A device that is gone, or has no queueing discipline there, has no filters.
async fn list_all(handle: &Handle, ifindex: i32, way: Way) -> io::Result<Vec<TcMessage>> {
    let question = handle.traffic_filter(ifindex).get();
    let question = match way {
        Way::Received => question.ingress(),
        Way::Sent => question.egress(),
    };
    let found: Vec<TcMessage> = question.execute().try_collect().await.map_err(io_error)?;
    // Each priority is told before its filters, without a handle.
    let is_filter = |header: &TcHeader| header.handle != TcHandle::UNSPEC;
    let found = found.into_iter();
    Ok(found.filter(|found| is_filter(&found.header)).collect())
}

fn filter(message: &TcMessage) -> Filter {
    let attributes = message.attributes.iter();
    let mut options = attributes.filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let info = message.header.info;
    Filter {
        handle: message.header.handle.into(),
        priority: (info >> 16) as u16,
        protocol: info as u16,
        kind: kind(&message.attributes).unwrap_or_default(),
        program: options.next().and_then(|options| {
            options.iter().find_map(|option| match option {
                TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
                _ => None,
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_handles_of_their_own() {
        let [one, other] = ["/run/sg", "/tmp/other"].map(|path| handle(Path::new(path)));
        assert_ne!(one, other);
        assert_eq!([one >> 16, other >> 16], [0x7367; 2]);
        assert_eq!(one, handle(Path::new("/run/sg")));
    }

    #[test]
    fn the_package_deletes_the_filters_of_the_usual_instance() {
        let script = include_str!("../../../xtask/package/postrm");
        let handle = format!(" handle {:#x} ", handle(Path::new("/run/sg")));
        assert_eq!(script.matches(&handle).count(), 2);
        let priority = format!("pref {PRIORITY} protocol all");
        assert!(script.contains(&priority));
    }

    #[test]
    fn a_filter_is_told_from_others_by_handle_priority_kind_and_protocol() {
        let ours = Filter {
            handle: 7,
            priority: PRIORITY,
            protocol: EVERY_PROTOCOL,
            kind: BPF.to_owned(),
            program: Some(1),
        };
        assert!(ours.is_of(7));
        for other in [
            Filter {
                handle: 8,
                ..ours.clone()
            },
            Filter {
                priority: 2,
                ..ours.clone()
            },
            Filter {
                protocol: 8,
                ..ours.clone()
            },
            Filter {
                kind: "u32".to_owned(),
                ..ours.clone()
            },
        ] {
            assert!(!other.is_of(7), "{other:?}");
        }
    }
}
