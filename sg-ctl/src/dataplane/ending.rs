//! Ends single flows, through the same code as packets do.
//!
//! A bucket of flows is never written from here: whoever counts or moves a deadline in it takes no
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
        Ok(run(program, &key.to_bytes())? > 0)
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

#[cfg(test)]
mod tests {
    use sg_common::addr::Addr;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = FlowKey {
            local: Addr::from_v4([10, 0, 0, 1]),
            peer: Addr::from_v6([0xfd, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
            zone: 0x0102_0304,
            local_port: 22,
            peer_port: 40_000,
            protocol: 6,
            asker: 2,
            padding: [0; 2],
        };
        let bytes = key.to_bytes();
        assert_eq!(FlowKey::read(bytes.as_slice()), Some(key));
        assert_eq!(FlowKey::read(&bytes[..41]), None);
    }
}
