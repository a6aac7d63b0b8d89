//! The object with the kernel programs, embedded, and how it comes into the kernel.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use aya::EbpfError;
use aya::maps::{Map, MapError, ProgramArray};
use aya::programs::{Program, ProgramError, ProgramFd};

use crate::pins::{self, Pins};
use crate::spec::{self, Capacities};
use crate::{Error, sys};

/// Bytes at the alignment that an ELF parser needs.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("FAIRLEAD_BPF_OBJECT")));

/// Where a program hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    /// A cgroup, at this attach type.
    Cgroup(u32),
    /// The cgroup of a pod that uses the node's network, at this attach type.
    PodCgroup(u32),
    /// A classifier of packets.
    Tc,
    /// A device driver's receive path.
    Xdp,
    /// Nowhere: `device_xdp` goes on in it.
    BehindXdp,
}

/// Every program of the object. The names are also those that the kernel shows.
pub(crate) const PROGRAMS: &[(&str, Hook)] = &[
    ("connect4", Hook::Cgroup(sys::attach::INET4_CONNECT)),
    ("connect6", Hook::Cgroup(sys::attach::INET6_CONNECT)),
    ("sendmsg4", Hook::Cgroup(sys::attach::UDP4_SENDMSG)),
    ("sendmsg6", Hook::Cgroup(sys::attach::UDP6_SENDMSG)),
    ("recvmsg4", Hook::Cgroup(sys::attach::UDP4_RECVMSG)),
    ("recvmsg6", Hook::Cgroup(sys::attach::UDP6_RECVMSG)),
    ("getpeername4", Hook::Cgroup(sys::attach::INET4_GETPEERNAME)),
    ("getpeername6", Hook::Cgroup(sys::attach::INET6_GETPEERNAME)),
    ("sock_release", Hook::Cgroup(sys::attach::INET_SOCK_RELEASE)),
    (
        "cgroup_ingress",
        Hook::PodCgroup(sys::attach::CGROUP_INET_INGRESS),
    ),
    (
        "cgroup_egress",
        Hook::PodCgroup(sys::attach::CGROUP_INET_EGRESS),
    ),
    ("pod_ingress", Hook::Tc),
    ("pod_egress", Hook::Tc),
    ("device_ingress", Hook::Tc),
    ("device_egress", Hook::Tc),
    ("device_xdp", Hook::Xdp),
    ("device_xdp_rest", Hook::BehindXdp),
];

/// The table by which `device_xdp` goes on.
const DEVICE_XDP: &str = "DEVICE_XDP";

/// The loaded programs, by name, and with them [`DEVICE_XDP`]: the kernel empties that as its last descriptor is closed and
/// its last pin is gone, whoever still runs.
pub(crate) type Programs = BTreeMap<&'static str, OwnedFd>;

/// Creates and pins the tables that are not pinned yet, and loads every program against them.
pub(crate) fn load(pins: &Pins, capacities: &Capacities) -> Result<Programs, Error> {
    for spec in spec::ALL {
        spec.check(pins, capacities)?;
    }
    let mut loader = aya::EbpfLoader::new();
    // No program reads a kernel type, so the kernel's own BTF (megabytes to parse) is not needed.
    loader.btf(None);
    for spec in spec::ALL {
        loader.map_pin_path(spec.name, pins.map(spec.name));
        if let Some(capacity) = spec.capacity(capacities) {
            loader.map_max_entries(spec.name, capacity);
        }
    }
    let mut object = loader
        .load(&OBJECT.0)
        .map_err(|error| not_created(error, capacities))?;
    for spec in spec::ALL {
        // Once more: this time what this object made.
        spec.check(pins, capacities)?;
    }
    load_programs(&mut object)
}

/// Pins programs, in the place of those that were.
pub(crate) fn pin(pins: &Pins, programs: &Programs) -> Result<(), Error> {
    programs
        .iter()
        .try_for_each(|(name, fd)| pins::replace(fd.as_fd(), &pins.program(name)))
}

/// Loads the packet programs with the tables of `shared` as they are pinned, and the others anew: those that can be
/// long with `entries` entries. Nothing is pinned: all of it is gone with what is returned.
pub(crate) fn load_apart(
    pins: &Pins,
    shared: impl Fn(&str) -> bool,
    may_be_long: impl Fn(&str) -> bool,
    entries: u32,
) -> Result<(Programs, aya::Ebpf), Error> {
    let capacities = Capacities::default();
    let mut loader = aya::EbpfLoader::new();
    loader.btf(None);
    for spec in spec::ALL {
        if shared(spec.name) {
            let path = pins.map(spec.name);
            // The loader would make what is not there.
            pins::open(&path)?.ok_or_else(|| Error::NotLoaded {
                path: pins.root().to_owned(),
            })?;
            spec.check(pins, &Capacities::none())?;
            loader.map_pin_path(spec.name, path);
        } else if spec.capacity(&capacities).is_some() || may_be_long(spec.name) {
            loader.map_max_entries(spec.name, entries);
        }
    }
    let mut object = loader
        .load(&OBJECT.0)
        .map_err(|error| not_created(error, &capacities))?;
    let mut programs = Programs::new();
    for &(name, hook) in PROGRAMS {
        if let (Hook::Tc | Hook::Xdp | Hook::BehindXdp, Some(program)) =
            (hook, object.program_mut(name))
        {
            programs.insert(name, load_one(name, program)?);
        }
    }
    programs.insert(DEVICE_XDP, go_on(&mut object)?);
    Ok((programs, object))
}

/// Names the table that the kernel had no memory for, if that is what stopped the loader.
fn not_created(error: EbpfError, capacities: &Capacities) -> Error {
    let sized = |name: &str| {
        let spec = spec::ALL.iter().find(|spec| spec.name == name)?;
        Some((spec, spec.capacity(capacities)?))
    };
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => match sized(&name) {
            Some((spec, entries)) => Error::Create {
                table: spec.name,
                entries,
                flag: spec.flag,
                source: io_error,
            },
            None => {
                let error = MapError::CreateError { name, io_error };
                Error::Object(Box::new(error.into()))
            }
        },
        error => Error::Object(Box::new(error)),
    }
}

/// Loads all programs at once, because the verifier takes most of the time that an agent needs to start.
fn load_programs(object: &mut aya::Ebpf) -> Result<Programs, Error> {
    let mut loaded: BTreeMap<&str, Result<OwnedFd, Error>> = thread::scope(|scope| {
        let threads: Vec<_> = object
            .programs_mut()
            .filter_map(|(name, program)| {
                let (name, _) = *PROGRAMS.iter().find(|(ours, _)| *ours == name)?;
                Some((name, scope.spawn(move || load_one(name, program))))
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads
            .into_iter()
            .map(|(name, thread)| (name, join(thread)))
            .collect()
    });
    let mut programs = PROGRAMS
        .iter()
        .map(|&(name, _)| {
            let fd = loaded
                .remove(name)
                .ok_or(Error::NoProgram { program: name })??;
            Ok((name, fd))
        })
        .collect::<Result<Programs, Error>>()?;
    programs.insert(DEVICE_XDP, go_on(object)?);
    Ok(programs)
}

/// Has `device_xdp` go on in the program behind it; returns the table that says so.
fn go_on(object: &mut aya::Ebpf) -> Result<OwnedFd, Error> {
    const REST: &str = "device_xdp_rest";
    let Some(Map::ProgramArray(table)) = object.take_map(DEVICE_XDP) else {
        return Err(Error::NoProgram {
            program: DEVICE_XDP,
        });
    };
    let Some(Program::Xdp(rest)) = object.program(REST) else {
        return Err(Error::NoProgram { program: REST });
    };
    let kept = copy(table.fd().as_fd())?;
    let rest = rest.fd().map_err(|error| refused(REST, error))?;
    ProgramArray::try_from(Map::ProgramArray(table))
        .and_then(|mut table| table.set(0, rest, 0))
        .map_err(|error| Error::Refused {
            program: REST,
            log: String::new(),
            source: Box::new(error),
        })?;
    Ok(kept)
}

fn load_one(name: &'static str, program: &mut Program) -> Result<OwnedFd, Error> {
    let loaded = load_program(program).map_err(|error| refused(name, error))?;
    copy(loaded.ok_or(Error::NoProgram { program: name })?.as_fd())
}

fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned().map_err(|source| Error::System {
        action: "copy the descriptor of a program",
        source,
    })
}

/// Loads one program; `None` if it is of a kind that we do not have.
fn load_program(program: &mut Program) -> Result<Option<&ProgramFd>, ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.fd().map(Some)
        }
        Program::CgroupSkb(program) => {
            program.load()?;
            program.fd().map(Some)
        }
        Program::CgroupSock(program) => {
            program.load()?;
            program.fd().map(Some)
        }
        Program::SchedClassifier(program) => {
            program.load()?;
            program.fd().map(Some)
        }
        Program::Xdp(program) => {
            program.load()?;
            program.fd().map(Some)
        }
        _ => Ok(None),
    }
}

/// Lines of the verifier's log that an error carries: the reason comes last.
const LOG_LINES: usize = 40;

fn refused(program: &'static str, error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => Error::Refused {
            program,
            log: last_lines(&verifier_log.to_string(), LOG_LINES),
            source: Box::new(io_error),
        },
        error => Error::Refused {
            program,
            log: String::new(),
            source: Box::new(error),
        },
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_kept() {
        for (text, expected) in [("", ""), ("a", "a"), ("a\nb\nc\n", "b\nc")] {
            assert_eq!(last_lines(text, 2), expected);
        }
    }

    #[test]
    fn program_names_fit_the_kernel() {
        for (name, _) in PROGRAMS {
            assert!(name.len() < 16, "{name} would be cut short by the kernel");
        }
    }
}
