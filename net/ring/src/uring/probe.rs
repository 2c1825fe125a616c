//! What this kernel offers, and what it costs to lack it.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// The features of io_uring that the driver uses where it finds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// One receive completion for several buffers (Linux 6.10).
    pub recv_bundle: bool,
    /// `IORING_OP_FTRUNCATE` (Linux 6.9); else a blocking call.
    pub ftruncate: bool,
    /// `IORING_OP_MSG_RING` (Linux 5.18); else an eventfd.
    pub msg_ring: bool,
    /// `IORING_OP_SEND_ZC` (Linux 6.0).
    pub send_zc: bool,
    /// `IORING_OP_SPLICE` (Linux 5.7).
    pub splice: bool,
    /// A minimum wait that gathers completions under load (Linux 6.12).
    pub min_wait: bool,
    /// `IORING_SETUP_DEFER_TASKRUN` (Linux 6.1): completions are run only when asked for.
    pub defer_taskrun: bool,
}

impl Features {
    pub(crate) fn of(ring: &IoUring, defer_taskrun: bool) -> io::Result<Self> {
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        Ok(Features {
            recv_bundle: ring.params().is_feature_recvsend_bundle(),
            ftruncate: probe.is_supported(opcode::Ftruncate::CODE),
            msg_ring: probe.is_supported(opcode::MsgRingData::CODE),
            send_zc: probe.is_supported(opcode::SendZc::CODE),
            splice: probe.is_supported(opcode::Splice::CODE),
            min_wait: ring.params().is_feature_min_timeout(),
            defer_taskrun,
        })
    }

    /// Each feature's name, whether it is here, and what lacking it costs.
    pub fn rows(&self) -> [(&'static str, bool, &'static str); 7] {
        [
            (
                "single issuer, deferred task run",
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
                "splice",
                self.splice,
                "large fetches are copied through user space",
            ),
            (
                "zero-copy send",
                self.send_zc,
                "large sends from memory are copied once more on a real network card",
            ),
            (
                "ftruncate on the ring",
                self.ftruncate,
                "a truncation blocks its core for a moment",
            ),
            (
                "minimum wait",
                self.min_wait,
                "smaller batches of completions under load",
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
