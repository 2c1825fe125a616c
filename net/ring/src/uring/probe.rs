//! What this kernel offers, and what it costs to lack it.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// The features of io_uring that the driver uses where it finds them. Linux 6.1 has the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `IORING_SETUP_DEFER_TASKRUN` (Linux 6.1): completions are run only when asked for.
    pub defer_taskrun: bool,
    /// One receive completion for several buffers (Linux 6.10; used from 6.16 on).
    pub recv_bundle: bool,
    /// `IORING_OP_MSG_RING` (Linux 5.18); else an eventfd.
    pub msg_ring: bool,
    /// A table of registered files (used from Linux 6.15 on); else the kernel looks each
    /// descriptor up, each time.
    pub registered_files: bool,
    /// `IORING_OP_SPLICE` (Linux 5.7); else files are read and sent.
    pub splice: bool,
    /// `IORING_OP_FTRUNCATE` (Linux 6.9); else a blocking call.
    pub ftruncate: bool,
    /// `IORING_OP_SEND_ZC` and `IORING_OP_SENDMSG_ZC` (Linux 6.1); else what is to be sent without
    /// a copy is copied.
    pub zero_copy: bool,
}

impl Features {
    /// All of them.
    pub const ALL: Features = Features {
        defer_taskrun: true,
        recv_bundle: true,
        msg_ring: true,
        registered_files: true,
        splice: true,
        ftruncate: true,
        zero_copy: true,
    };

    /// Those that a ring of Linux 6.1 on has, but for those decided when it was made.
    pub(super) fn of(ring: &IoUring) -> io::Result<Self> {
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let params = ring.params();
        Ok(Features {
            // Older bundles may skip bytes or come out of order (liburing issues 1409, 1423); the
            // operation that makes pipes came with the repair, in Linux 6.16.
            recv_bundle: params.is_feature_recvsend_bundle()
                && probe.is_supported(opcode::Pipe::CODE),
            // Before Linux 6.13 a file that leaves the table stays open until all operations on
            // others that began before have ended (liburing issue 1192): a listener's accept
            // keeps every connection of its ring open. This flag is the next there is, of 6.15.
            registered_files: params.is_feature_no_iowait(),
            ftruncate: probe.is_supported(opcode::Ftruncate::CODE),
            msg_ring: probe.is_supported(opcode::MsgRingData::CODE),
            splice: probe.is_supported(opcode::Splice::CODE),
            zero_copy: probe.is_supported(opcode::SendZc::CODE)
                && probe.is_supported(opcode::SendMsgZc::CODE),
            ..Features::ALL
        })
    }

    /// Those that both have.
    pub(super) fn and(self, other: Features) -> Self {
        Features {
            defer_taskrun: self.defer_taskrun && other.defer_taskrun,
            recv_bundle: self.recv_bundle && other.recv_bundle,
            msg_ring: self.msg_ring && other.msg_ring,
            registered_files: self.registered_files && other.registered_files,
            splice: self.splice && other.splice,
            ftruncate: self.ftruncate && other.ftruncate,
            zero_copy: self.zero_copy && other.zero_copy,
        }
    }

    /// Each feature's name, whether it is here, and what lacking it costs.
    pub fn rows(&self) -> [(&'static str, bool, &'static str); 7] {
        [
            (
                "deferred task run",
                self.defer_taskrun,
                "completions interrupt the core at any moment; some 5-10 % more CPU",
            ),
            (
                "receive bundles",
                self.recv_bundle,
                "one completion per receive buffer; up to twice the CPU for large produce requests",
            ),
            (
                "ring messages",
                self.msg_ring,
                "cores wake each other by eventfd: about twice the latency of a hop",
            ),
            (
                "registered files",
                self.registered_files,
                "each operation looks its descriptor up; a few percent more CPU",
            ),
            (
                "splice",
                self.splice,
                "large fetches are copied through user space",
            ),
            (
                "ftruncate on the ring",
                self.ftruncate,
                "a truncation blocks its core for a moment",
            ),
            (
                "zero-copy sends",
                self.zero_copy,
                "what an application asks to send from its own memory is copied",
            ),
        ]
    }
}

/// Turns a failure to make a ring into a sentence that names cause and remedy.
pub(crate) fn explain(error: io::Error, entries: u32) -> io::Error {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = sysctl.map(|s| s.trim().to_owned()).unwrap_or_default();
    let cause = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring; Linux 6.1 or newer is needed".to_owned()
        }
        Some(libc::EPERM) if disabled == "1" || disabled == "2" => format!(
            "io_uring is switched off by sysctl kernel.io_uring_disabled={disabled}; \
             set it to 0, or with 1 add the process to the group in kernel.io_uring_group"
        ),
        Some(libc::EPERM | libc::EACCES) => "io_uring is forbidden here, most likely by a \
             container's seccomp profile; allow the system calls io_uring_setup, \
             io_uring_enter and io_uring_register (Docker: --security-opt seccomp=PROFILE)"
            .to_owned(),
        Some(libc::ENOMEM) => "not enough locked memory for the ring; raise `ulimit -l` \
             (systemd: LimitMEMLOCK=infinity)"
            .to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => {
            "too many open files; raise `ulimit -n` (systemd: LimitNOFILE=)".to_owned()
        }
        Some(libc::EINVAL) => {
            format!("this kernel refuses a ring of {entries} entries with the flags of Linux 6.1")
        }
        _ => "the ring could not be made".to_owned(),
    };
    io::Error::new(
        error.kind(),
        format!("cannot start io_uring: {cause} ({error})"),
    )
}
