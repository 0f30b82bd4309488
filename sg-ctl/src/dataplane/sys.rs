//! System calls that no crate wraps: what the kernel says of a link, arrays mapped into memory,
//! and grace periods.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::maps::{MapData, MapError};
use aya::programs::TcAttachType;

use super::wire::Entry;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_DETACH: libc::c_long = 34;
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Arguments {
        path: u64,
        fd: u32,
        flags: u32,
        path_fd: i32,
        padding: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let arguments = Arguments {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
        path_fd: 0,
        padding: 0,
    };
    // SAFETY: the arguments and the path outlive the call, and the size is theirs.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Pins an open object.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Arguments {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let arguments = Arguments {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        flags: 0,
    };
    // SAFETY: the arguments and the path outlive the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_PIN,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    match result < 0 {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

/// Joins a program and a device of the calling thread's namespace at TCX, first in line. The device is
/// meant by its number: its name may be another's by now.
pub(super) fn link_first(
    program: BorrowedFd<'_>,
    ifindex: u32,
    way: TcAttachType,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Arguments {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        /// None of those there are: before all of them.
        relative: u32,
        padding: u32,
        revision: u64,
    }
    let arguments = Arguments {
        program: program.as_raw_fd() as u32,
        ifindex,
        attach_type: match way {
            TcAttachType::Ingress => BPF_TCX_INGRESS,
            _ => BPF_TCX_EGRESS,
        },
        flags: BPF_F_BEFORE,
        relative: 0,
        padding: 0,
        revision: 0,
    };
    // SAFETY: the arguments outlive the call, and the size is theirs.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What a link joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkEnds {
    /// The kernel's number of the link.
    pub(super) link: u32,
    /// The kernel's number of the program.
    pub(super) program: u32,
    /// The device; 0 when it, or the attachment, is gone.
    pub(super) ifindex: u32,
}

/// Asks the kernel what a link joins.
pub(super) fn link_ends(link: &OwnedFd) -> io::Result<LinkEnds> {
    // `struct bpf_link_info`: type, id, program, padding; then, for XDP and TCX alike, the device.
    let mut info = [0_u32; 64];
    #[repr(C)]
    struct Arguments {
        fd: u32,
        length: u32,
        info: u64,
    }
    let arguments = Arguments {
        fd: link.as_raw_fd() as u32,
        length: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the arguments and the buffer outlive the call, and the sizes are theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let [_, link, program, _, ifindex, ..] = info;
    Ok(LinkEnds {
        link,
        program,
        ifindex,
    })
}

/// The links at the TCX hook that a device of the calling thread's namespace sends by.
pub(super) fn sending_links(ifindex: u32) -> io::Result<Vec<u32>> {
    /// As many as the kernel lets one device have.
    const MOST: usize = 64;
    #[repr(C)]
    struct Arguments {
        ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
    let mut arguments = Arguments {
        ifindex,
        attach_type: BPF_TCX_EGRESS,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: MOST as u32,
        padding: 0,
        program_flags: 0,
        links: links.as_mut_ptr() as u64,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: the arguments and the arrays outlive the call, and the sizes are theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut arguments,
            size_of::<Arguments>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(links.into_iter().take(arguments.count as usize).collect())
}

/// Takes a link's program off its device before this returns.
pub(super) fn detach(link: &OwnedFd) -> io::Result<()> {
    #[repr(C)]
    struct Arguments {
        fd: u32,
    }
    let arguments = Arguments {
        fd: link.as_raw_fd() as u32,
    };
    // SAFETY: the arguments outlive the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_DETACH,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    match result < 0 {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

/// The entries of an array map (`BPF_F_MMAPABLE`) in this process's memory.
pub(super) struct MappedArray {
    start: *mut u8,
    length: usize,
}

// SAFETY: through a shared reference the memory is only copied from, with what the kernel's programs
// write meanwhile as [`MappedArray::entry`] says; only a unique one writes, and only `drop` unmaps.
unsafe impl Sync for MappedArray {}

impl MappedArray {
    /// Maps the first `length` bytes.
    pub(super) fn open(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        // SAFETY: takes no pointers; the kernel chooses where the mapping lies.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// Reads one entry. What programs write meanwhile may be read in part.
    pub(super) fn entry<E: Entry>(&self, index: usize) -> io::Result<E> {
        let end = index.checked_add(1);
        let end = end.and_then(|end| end.checked_mul(size_of::<E>()));
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: just checked to lie within the mapping, and `Entry` promises that any bytes will do.
        Ok(unsafe {
            self.start
                .add(index * size_of::<E>())
                .cast::<E>()
                .read_unaligned()
        })
    }

    /// Copies the first entries. What is written meanwhile may be read in part.
    pub(super) fn entries<E: Entry>(&self, count: usize) -> io::Result<Vec<E>> {
        if count
            .checked_mul(size_of::<E>())
            .is_none_or(|end| end > self.length)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut entries = Vec::with_capacity(count);
        // SAFETY: just checked to lie within the mapping, there is room for as many, and `Entry`
        // promises that any bytes will do.
        unsafe {
            let room: *mut E = entries.as_mut_ptr();
            std::ptr::copy_nonoverlapping(self.start, room.cast(), count * size_of::<E>());
            entries.set_len(count);
        }
        Ok(entries)
    }

    /// Writes bytes at an offset. What does not fit is an error, and nothing is written.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let end = at.checked_add(bytes.len());
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // SAFETY: just checked to lie within the mapping, which only this object holds in this process.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len());
        }
        Ok(())
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's, and nothing refers to it any more. It cannot fail.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// The elements of an array or a hash map, many a system call.
///
/// Each is a copy that a writer may have torn. Its lock would not help: packets count without it.
pub(super) struct Batches<K, V> {
    map: MapData,
    /// Where the kernel goes on: an index, or a bucket.
    last: Option<u32>,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Entry + Default, V: Entry + Default> Batches<K, V> {
    /// Begins at the first element of a pinned map.
    pub(super) fn open(path: &Path, at_once: usize) -> Result<Self, MapError> {
        let map = MapData::from_pin(path)?;
        let info = map.info()?;
        let sizes = [
            (info.key_size(), size_of::<K>()),
            (info.value_size(), size_of::<V>()),
        ];
        for (found, expected) in sizes {
            if found as usize != expected {
                return Err(MapError::InvalidValueSize {
                    size: expected,
                    expected: found as usize,
                });
            }
        }
        Ok(Self {
            map,
            last: None,
            keys: vec![K::default(); at_once],
            values: vec![V::default(); at_once],
        })
    }

    /// The next elements; none after the last.
    pub(super) fn next(&mut self) -> io::Result<(&[K], &[V])> {
        #[repr(C)]
        struct Arguments {
            in_batch: u64,
            out_batch: u64,
            keys: u64,
            values: u64,
            count: u32,
            map: u32,
            element_flags: u64,
            flags: u64,
        }
        let mut reached = 0_u32;
        let mut arguments = Arguments {
            in_batch: self.last.as_ref().map_or(0, |last| &raw const *last as u64),
            out_batch: &raw mut reached as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.values.len() as u32,
            map: self.map.fd().as_fd().as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the arguments and what they point to outlive the call; keys and values have room
        // for `count`, and `open` has compared the sizes of the map's keys and values with those of
        // `K` and `V`, of which every pattern of bytes is one.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut arguments,
                size_of::<Arguments>(),
            )
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            // What the kernel says with the last elements, and after them.
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error);
            }
        }
        self.last = Some(reached);
        let found = ..arguments.count as usize;
        let keys = self.keys.get(found).unwrap_or_default();
        Ok((keys, self.values.get(found).unwrap_or_default()))
    }
}

/// The least program that uses something of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// An atomic addition that gives back the old value.
    FetchingAtomic,
    /// XDP for packets in more than one buffer.
    Frags,
}

/// Asks the kernel to take a probe, which nothing ever runs.
pub(super) fn takes(probe: Probe) -> io::Result<()> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_XDP: u32 = 6;
    const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
    // Instructions as `struct bpf_insn` has them: code, registers, offset, number.
    const STORE_NUMBER: u64 = 0x0000_0000_fff8_0a7a;
    const NUMBER_1: u64 = 0x0000_0001_0000_01b7;
    const FETCH_ADD: u64 = 0x0000_0001_fff8_1adb;
    const NUMBER_0: u64 = 0x0000_0000_0000_00b7;
    const EXIT: u64 = 0x0000_0000_0000_0095;
    #[repr(C)]
    struct Arguments {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let (instructions, flags): (&[u64], u32) = match probe {
        Probe::FetchingAtomic => (&[STORE_NUMBER, NUMBER_1, FETCH_ADD, NUMBER_0, EXIT], 0),
        Probe::Frags => (&[NUMBER_0, EXIT], BPF_F_XDP_HAS_FRAGS),
    };
    let arguments = Arguments {
        kind: BPF_PROG_TYPE_XDP,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags,
    };
    // SAFETY: the arguments, the instructions and the licence outlive the call, and the sizes are
    // theirs.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, which closes here.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}

/// Whether [`wait_for_readers`] works: on machines with `nohz_full` CPUs the kernel refuses.
pub(super) fn can_wait_for_readers() -> bool {
    const MEMBARRIER_CMD_QUERY: libc::c_long = 0;
    // SAFETY: takes no pointers.
    let supported = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) };
    supported >= 0 && supported & MEMBARRIER_CMD_GLOBAL != 0
}

/// Waits until every program that was running has ended: one RCU grace period (membarrier(2)).
pub(super) fn wait_for_readers() -> io::Result<()> {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
