//! Traffic for measuring: frames put on a wire as fast as the kernel makes them, and the programs
//! at its other end that do nothing but drop.
//!
//! The kernel's live-frames mode hands a program pages that hold the frame, and sends what it gives
//! back through the device's `ndo_xdp_xmit`, without a socket or a socket buffer in between. A veth
//! takes such frames when its peer has native XDP or generic receive offload
//! (<https://docs.kernel.org/bpf/bpf_prog_run.html>).

use aya::maps::{Array, MapData};
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::XdpMode;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRunAttrs, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use sg_common::scatter::Scatter;

use super::super::object;
use super::super::wire::Wire;
use super::super::{Error, ReceiveHook};
use super::MEASURING_OBJECT;
use super::rehearsal::Yardstick;
use super::replay::xdp_context;

const FLOOD: &str = "sg_flood";

/// A sender of frames from scattered sources.
pub struct Flood {
    object: Ebpf,
    scatter: Array<MapData, Wire<Scatter>>,
}

impl Flood {
    /// Loads the program.
    pub fn load() -> Result<Self, Error> {
        let mut object = load()?;
        object::load_program(&mut object, FLOOD)?;
        let scatter = object
            .take_map("SCATTER")
            .ok_or(Error::ProgramMissing("SCATTER"))?;
        Ok(Self {
            scatter: scatter.try_into().map_err(Error::Read)?,
            object,
        })
    }

    /// Says what the next frames are.
    pub fn scatter(&mut self, scatter: Scatter) -> Result<(), Error> {
        self.scatter.set(0, Wire(scatter), 0).map_err(Error::Write)
    }

    /// Sends so many frames out of a device of the caller's network namespace, on the caller's CPU.
    /// Those for which the other end has no room are lost, as on a wire.
    pub fn send(&self, ifindex: u32, frame: &[u8], frames: u32) -> Result<(), Error> {
        /// What the kernel takes at once unless told otherwise.
        const BATCH: u32 = 64;
        let program = xdp(&self.object, FLOOD)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&xdp_context(ifindex, frame.len())),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        program
            .test_run(options)
            .map(drop)
            .map_err(|source| wrong(FLOOD, source))
    }
}

/// A program that drops every frame a device receives, attached while this exists.
pub struct Bound {
    _object: Ebpf,
}

impl Bound {
    /// Attaches to an interface of the caller's network namespace what drops unread.
    pub fn attach(hook: ReceiveHook, interface: &str) -> Result<Self, Error> {
        let yardstick = match hook {
            ReceiveHook::XdpNative | ReceiveHook::XdpGeneric => Yardstick::DropXdp,
            ReceiveHook::Tc => Yardstick::DropTc,
        };
        Self::attach_program(yardstick, hook, interface)
    }

    /// The same with what reads the headers of TCP over IPv4 before it drops them.
    pub fn attach_reading(hook: ReceiveHook, interface: &str) -> Result<Self, Error> {
        let yardstick = match hook {
            ReceiveHook::XdpNative | ReceiveHook::XdpGeneric => Yardstick::ParseXdp,
            ReceiveHook::Tc => Yardstick::ParseTc,
        };
        Self::attach_program(yardstick, hook, interface)
    }

    fn attach_program(
        yardstick: Yardstick,
        hook: ReceiveHook,
        interface: &str,
    ) -> Result<Self, Error> {
        let mut object = load()?;
        let name = yardstick.program();
        object::load_program(&mut object, name)?;
        let program = object
            .program_mut(name)
            .ok_or(Error::ProgramMissing(name))?;
        let wrong = |source| wrong(name, source);
        let attached = match hook {
            ReceiveHook::XdpNative | ReceiveHook::XdpGeneric => {
                let mode = match hook {
                    ReceiveHook::XdpNative => XdpMode::Driver,
                    _ => XdpMode::Skb,
                };
                let program: &mut Xdp = program.try_into().map_err(wrong)?;
                program.attach(interface, mode).map(drop)
            }
            ReceiveHook::Tc => {
                let program: &mut SchedClassifier = program.try_into().map_err(wrong)?;
                let options = TcAttachOptions::TcxOrder(LinkOrder::first());
                program
                    .attach_with_options(interface, TcAttachType::Ingress, options)
                    .map(drop)
            }
        };
        attached.map_err(wrong)?;
        Ok(Self { _object: object })
    }
}

fn load() -> Result<Ebpf, Error> {
    EbpfLoader::new()
        .load(MEASURING_OBJECT)
        .map_err(|source| Error::Object(Box::new(source)))
}

pub(super) fn xdp<'a>(object: &'a Ebpf, name: &'static str) -> Result<&'a Xdp, Error> {
    object
        .program(name)
        .ok_or(Error::ProgramMissing(name))?
        .try_into()
        .map_err(|source| wrong(name, source))
}

pub(super) fn wrong(name: &'static str, source: ProgramError) -> Error {
    Error::Program {
        name,
        source: Box::new(source),
    }
}
