//! The processor architectures that sg is built and tried for, by the names of each tool.

use clap::ValueEnum;

/// A processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// What most servers have
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit ARM
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Arch {
    /// The one that this program was built for.
    pub(crate) const fn native() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// Debian's name.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Rust's name of the target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Debian's prefix of the tools that build for it from another architecture.
    pub(crate) const fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// The emulator.
    pub(crate) const fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The machine that the emulator plays. Plain emulation works everywhere, also in machines that
    /// are virtual themselves.
    pub(crate) const fn machine(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["-machine", "pc,accel=tcg", "-cpu", "max"],
            // Pointer authentication by the book costs half of the emulator's time.
            Self::Aarch64 => &["-machine", "virt,accel=tcg", "-cpu", "max,pauth-impdef=on"],
        }
    }

    /// What the kernel is told: the console that the emulator joins to its standard output, and
    /// what an emulator on a busy machine needs.
    pub(crate) const fn kernel_arguments(self) -> &'static str {
        match self {
            // A timer that ticks late is taken for broken, and the kernel gives up.
            Self::X86_64 => "console=ttyS0 no_timer_check",
            Self::Aarch64 => "console=ttyAMA0",
        }
    }
}
