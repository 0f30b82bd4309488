//! Ends single flows, through the same code as packets do.
//!
//! A bucket of flows is never written from here: programs count and move deadlines in it without a
//! lock. A program of the object is run instead (`BPF_PROG_TEST_RUN`), attached nowhere; it finds
//! the flow anew and frees its place, and what its interface may hold becomes more.

use aya::programs::{Program, Xdp};
use aya::{Ebpf, TestRun as _, TestRunOptions};
use sg_common::flow::FlowKey;

use super::object::{self, END_FLOW};
use super::{Dataplane, Error};

/// The program, over the maps of the installed layout.
pub struct Ender {
    object: Ebpf,
}

impl Dataplane {
    /// Loads what ends flows; `None` when nothing is installed, and so there are none.
    pub fn ender(&self) -> Result<Option<Ender>, Error> {
        let Some(record) = self.record() else {
            return Ok(None);
        };
        let mut object = object::load(&self.bpffs, record, 0)?;
        object::load_program(&mut object, END_FLOW)?;
        Ok(Some(Ender { object }))
    }
}

impl Ender {
    /// Ends a flow, and says whether it was still there.
    pub fn end(&self, key: &FlowKey) -> Result<bool, Error> {
        let Some(Program::Xdp(program)) = self.object.program(END_FLOW) else {
            return Err(Error::ProgramMissing(END_FLOW));
        };
        Ok(run(program, &in_memory(key))? > 0)
    }
}

fn run(program: &Xdp, key: &[u8]) -> Result<u32, Error> {
    let options = TestRunOptions {
        data_in: Some(key),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).map_err(|source| Error::Program {
        name: END_FLOW,
        source: Box::new(source),
    })?;
    Ok(result.return_value)
}

/// The bytes of a key as the kernel's half holds it.
#[expect(
    clippy::host_endian_bytes,
    reason = "a key is the host's memory, not a packet's"
)]
fn in_memory(key: &FlowKey) -> [u8; size_of::<FlowKey>()] {
    let mut bytes = [0; size_of::<FlowKey>()];
    let fields = key.local.octets().into_iter().chain(key.peer.octets());
    let fields = fields
        .chain(key.zone.to_ne_bytes())
        .chain(key.local_port.to_ne_bytes())
        .chain(key.peer_port.to_ne_bytes())
        .chain([key.protocol, key.asker]);
    for (to, byte) in bytes.iter_mut().zip(fields) {
        *to = byte;
    }
    bytes
}
