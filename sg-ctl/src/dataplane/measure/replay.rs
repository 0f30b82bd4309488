//! Runs the installed programs on frames that no device has received (`BPF_PROG_TEST_RUN`).
//!
//! The programs look at the installed maps: what they admit opens flows, and is counted.

use aya::maps::{Array, MapData};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, TestRun as _, TestRunOptions};
use sg_common::abi::{ReasonCounters, reasons_index};
use sg_common::ids::Ticks;
use sg_common::packet::Direction;
use sg_common::report::{Reason, Verdict};

use super::super::maps::{layout_folder, open, open_reasons};
use super::super::object;
use super::super::per_cpu::PerCpu;
use super::super::state::Record;
use super::super::{Dataplane, Error};
use super::replay_flows::ReplayFlows;

const ETHERNET_HEADER: usize = 14;

/// Which program judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayHook {
    /// Received frames at XDP.
    XdpReceive,
    /// Received frames at TC.
    TcReceive,
    /// Sent frames at TC.
    TcSend,
    /// Received frames at XDP, of which only the Ethernet header is in the first buffer.
    XdpReceiveSplit,
}

impl ReplayHook {
    /// Those that every kernel can replay.
    pub const ALL: [Self; 3] = [Self::XdpReceive, Self::TcReceive, Self::TcSend];

    fn program(self) -> &'static str {
        match self {
            Self::XdpReceive | Self::XdpReceiveSplit => object::XDP_RECEIVE,
            Self::TcReceive => object::TC_RECEIVE,
            Self::TcSend => object::TC_SEND,
        }
    }

    /// Whether the frame comes from the device.
    pub fn receives(self) -> bool {
        !matches!(self, Self::TcSend)
    }
}

/// The programs of one network namespace, over the maps of the installed layout.
pub struct Replay {
    object: Ebpf,
    reasons: PerCpu<ReasonCounters>,
    clock: Xdp,
    readings: Array<MapData, u64>,
    flows: ReplayFlows,
    jiffies_per_second: u32,
    layout: u32,
}

impl Dataplane {
    /// Loads the programs for a network namespace; `None` when nothing is installed.
    pub fn replay(&self, netns: u32) -> Result<Option<Replay>, Error> {
        self.replay_by(|record| object::load(&self.bpffs, record, netns))
    }

    /// The same with the programs of a trace.
    pub fn replay_traced(&self, netns: u32) -> Result<Option<Replay>, Error> {
        self.replay_by(|record| object::load_traced(&self.bpffs, record, netns))
    }

    fn replay_by(
        &self,
        load: impl FnOnce(&Record) -> Result<Ebpf, Error>,
    ) -> Result<Option<Replay>, Error> {
        let Some(record) = self.record() else {
            return Ok(None);
        };
        let mut object = load(record)?;
        for hook in ReplayHook::ALL {
            object::load_program(&mut object, hook.program())?;
        }
        let layout = layout_folder(&self.bpffs, record.layout);
        Ok(Some(Replay {
            object,
            reasons: PerCpu::open(&open_reasons(&layout)?)?,
            clock: object::open_clock(&layout)?,
            readings: open(&layout, "CLOCK")?,
            flows: ReplayFlows::open(&self.bpffs, record)?,
            jiffies_per_second: record.jiffies_per_second,
            layout: record.layout,
        }))
    }

    /// Whether the programs look at the maps that are in force.
    pub fn is_current(&self, replay: &Replay) -> bool {
        self.record()
            .is_some_and(|record| record.layout == replay.layout)
    }
}

impl Replay {
    /// The kernel's time, as flows tell it.
    pub fn now(&self) -> Result<Ticks, Error> {
        object::run_clock(&self.clock, &self.readings).map(Ticks::from_jiffies)
    }

    /// So much time, as flows tell it.
    pub fn ticks(&self, seconds: u64) -> u32 {
        Ticks::from_jiffies(seconds * u64::from(self.jiffies_per_second)).0
    }

    /// The flows that the programs know.
    pub fn flows(&mut self) -> &mut ReplayFlows {
        &mut self.flows
    }

    /// How many packets had this reason at an interface.
    pub fn count_of(&self, slot: u32, direction: Direction, reason: Reason) -> Result<u64, Error> {
        let counted = self.reasons.total(reasons_index(slot, direction))?;
        Ok(counted.of(reason).packets)
    }

    /// How many packets had each reason at an interface, in the order of the reasons' numbers.
    pub fn reasons(&self, slot: u32, direction: Direction) -> Result<Vec<u64>, Error> {
        let reasons = Reason::ALL.iter();
        reasons
            .map(|reason| self.count_of(slot, direction, *reason))
            .collect()
    }

    /// Judges a frame as if the device had received it, or was about to send it. The caller is in
    /// the device's network namespace. `None`: the kernel refuses to run a program on such a frame;
    /// at TC it wants a whole network header behind an Ethernet one that promises it.
    pub fn judge(
        &mut self,
        hook: ReplayHook,
        ifindex: u32,
        frame: &[u8],
    ) -> Result<Option<Verdict>, Error> {
        let name = hook.program();
        let program = self
            .object
            .program(name)
            .ok_or(Error::ProgramMissing(name))?;
        let result = match program {
            Program::Xdp(program) => {
                let first_buffer = match hook {
                    ReplayHook::XdpReceiveSplit => frame.len().min(ETHERNET_HEADER),
                    _ => frame.len(),
                };
                run_xdp(program, ifindex, frame, first_buffer)
            }
            Program::SchedClassifier(program) => run_tc(program, ifindex, frame),
            _ => return Err(Error::ProgramMissing(name)),
        };
        match result {
            Ok(verdict) => Ok(Some(verdict)),
            Err(error) if is_refusal(&error) => Ok(None),
            Err(source) => Err(Error::Program {
                name,
                source: Box::new(source),
            }),
        }
    }
}

type Run = Result<Verdict, ProgramError>;

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
/// Since Linux 6.18 data_end may lie before the frame's end: what is behind it is in further buffers.
pub(super) fn xdp_context(ifindex: u32, first_buffer: usize) -> [u8; 24] {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&native(first_buffer as u32));
    context[12..16].copy_from_slice(&native(ifindex));
    context
}

fn run_xdp(program: &Xdp, ifindex: u32, frame: &[u8], first_buffer: usize) -> Run {
    const XDP_PASS: u32 = 2;
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&xdp_context(ifindex, first_buffer)),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options)?;
    Ok(if result.return_value == XDP_PASS {
        Verdict::Pass
    } else {
        Verdict::Drop
    })
}

/// `struct __sk_buff`, of which the kernel takes the device at byte 40.
fn run_tc(program: &SchedClassifier, ifindex: u32, frame: &[u8]) -> Run {
    const TCX_NEXT: u32 = u32::MAX;
    let mut context = [0; 192];
    context[40..44].copy_from_slice(&native(ifindex));
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options)?;
    Ok(if result.return_value == TCX_NEXT {
        Verdict::Pass
    } else {
        Verdict::Drop
    })
}

/// The bytes of a number as the kernel's structs hold it.
#[expect(
    clippy::host_endian_bytes,
    reason = "a context is the host's memory, not a packet's"
)]
fn native(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

fn is_refusal(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::EINVAL),
        _ => false,
    }
}
