//! What can go wrong between us and the kernel, each with the thing it is about and the remedy.

use std::io;
use std::path::PathBuf;

/// An error of this crate. The message names the thing and what to do about it; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process may not load programs.
    #[error("{} missing: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN", missing.join(", "))]
    Capabilities {
        /// Names of the missing capabilities.
        missing: Vec<&'static str>,
    },
    /// The kernel is too old.
    #[error("Linux {release} is too old for the programs: they need 5.18 or later")]
    Kernel {
        /// What runs here.
        release: String,
    },
    /// The pins have no file system to live in.
    #[error(
        "{} is not on a bpffs: mount one with `mount -t bpf bpf /sys/fs/bpf`, or name another with --bpffs-root",
        path.display()
    )]
    NoBpffs {
        /// Where the pins should be.
        path: PathBuf,
    },
    /// The cgroup hooks have nothing to hang on.
    #[error(
        "{} {}: name with --cgroup-root a folder of a cgroup2 file system (where there is none, `mount -t cgroup2 none DIR` \
         makes one; `ip netns exec` hides the host's)",
        path.display(),
        if path.exists() { "is not a cgroup of the unified hierarchy" } else { "does not exist" }
    )]
    NoCgroup {
        /// Where the hooks should be attached.
        path: PathBuf,
    },
    /// Another agent owns the pins.
    #[error(
        "{} belongs to a running agent{}: stop that one, or give this one its own --bpffs-root",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Owned {
        /// The root of the pins.
        path: PathBuf,
        /// The owner, where the kernel tells.
        pid: Option<u32>,
    },
    /// Nothing is pinned where a table was looked for.
    #[error("nothing is loaded at {}: start `fairlead proxy` or `fairlead up` first, or name another --bpffs-root", path.display())]
    NotLoaded {
        /// Where the pins were looked for.
        path: PathBuf,
    },
    /// A pinned table is of another layout.
    #[error(
        "the pinned table {table} has {what} {found} where this build needs {wanted}: remove it with `fairlead proxy --cleanup`, which stops balancing until the next start"
    )]
    Shape {
        /// Name of the table.
        table: &'static str,
        /// What differs.
        what: &'static str,
        /// What the kernel holds.
        found: u32,
        /// What we need.
        wanted: u32,
    },
    /// A pinned table is smaller than configured.
    #[error(
        "the pinned table {table} holds {found} entries, fewer than {flag} {wanted}: keep {flag} {found}, or remove the tables with `fairlead proxy --cleanup`, which stops balancing until the next start"
    )]
    TooSmall {
        /// Name of the table.
        table: &'static str,
        /// The option that sets the capacity.
        flag: &'static str,
        /// Entries that the kernel's table can hold.
        found: u32,
        /// Entries asked for.
        wanted: u32,
    },
    /// The kernel refused to make a table.
    #[error(
        "cannot create the table {table} with {entries} entries: give a smaller {flag}, or this host more memory"
    )]
    Create {
        /// Name of the table.
        table: &'static str,
        /// Entries asked for.
        entries: u32,
        /// The option that sets them.
        flag: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The embedded object cannot be brought into the kernel.
    #[error("cannot create the tables and prepare the programs for this kernel")]
    Object(#[source] Box<aya::EbpfError>),
    /// The kernel's verifier refused a program.
    #[error("the kernel refused the program {program}; the verifier's last words:\n{log}")]
    Refused {
        /// Name of the program.
        program: &'static str,
        /// The end of the verifier's log; empty if it did not come to that.
        log: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The embedded object is not the one that this code was made for.
    #[error("the embedded object has no program {program}: run `cargo xtask build`")]
    NoProgram {
        /// Name of the program.
        program: &'static str,
    },
    /// The embedded object is not the one that this code was made for.
    #[error("the embedded object has no table {table}: run `cargo xtask build`")]
    NoTable {
        /// Name of the table.
        table: &'static str,
    },
    /// The pins are those of a version that did not know this table yet, or somebody removed one.
    #[error(
        "what is loaded at {} has no table {table}: an older version loaded it, or it is damaged; start `fairlead proxy` or `fairlead up` of this version again, which makes what is missing and keeps the rest",
        path.display()
    )]
    Missing {
        /// Where the pins are.
        path: PathBuf,
        /// Name of the table.
        table: &'static str,
    },
    /// Nobody else may watch.
    #[error("four watch already, and no more can at once: end another `fairlead monitor`")]
    Watched,
    /// A ring of events could not be opened.
    #[error("cannot read events from {}", path.display())]
    Ring {
        /// Where it is pinned.
        path: PathBuf,
        /// Why not.
        source: Box<aya::maps::MapError>,
    },
    /// A file or pin could not be handled.
    #[error("cannot {action} {}", path.display())]
    Path {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no such device here.
    #[error("no device {device} in this network namespace: `ip link` lists those there are")]
    NoDevice {
        /// Name or index of the device.
        device: String,
    },
    /// Somebody else's XDP program is in place. We never remove it.
    #[error(
        "{device} carries an XDP program that is not ours ({program}, attached {mode}): stop what put it there, or remove it with `{remedy}`, or use --xdp off"
    )]
    ForeignXdp {
        /// Name of the device.
        device: String,
        /// Identifier and name of the program, as far as the kernel tells.
        program: String,
        /// How it is attached.
        mode: &'static str,
        /// The command that removes it.
        remedy: String,
    },
    /// The kernel refused to attach a program.
    #[error("cannot attach {program} to {to}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// The cgroup or device.
        to: String,
        /// Why not.
        source: io::Error,
    },
    /// The same, through aya's netlink code.
    #[error("cannot attach {program} to {to} as a tc filter")]
    AttachFilter {
        /// Name of the program.
        program: &'static str,
        /// The device.
        to: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table has no room left.
    #[error(
        "the table {table} is full: {key} does not fit beside its {capacity} entries; raise {flag}"
    )]
    Full {
        /// Name of the table.
        table: &'static str,
        /// What did not fit.
        key: String,
        /// Entries that the table can hold.
        capacity: u32,
        /// The option that raises it.
        flag: &'static str,
    },
    /// A table could not be read or written.
    #[error("cannot {action} {key} in the table {table}")]
    Table {
        /// Name of the table.
        table: &'static str,
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        key: String,
        /// Why not.
        source: io::Error,
    },
    /// A question to the kernel failed.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn path(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Path {
            action,
            path,
            source,
        }
    }

    /// True if a table had no room: a decision for whoever plans, where other errors are for the operator.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }
}

/// The step at which [`plan::Store::apply`] stopped. The steps before it took effect, and those behind it may
/// still be applied, unless they rest on this one.
#[derive(Debug, thiserror::Error)]
#[error("step {index} of the change failed")]
pub struct ApplyError {
    /// Position of the failed step in the slice given to `apply`.
    pub index: usize,
    /// Why it failed.
    pub source: Error,
}
