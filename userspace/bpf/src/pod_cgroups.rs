//! Cgroups of pods that use the node's network: the programs that judge packets hang there, and the kernel knows which
//! pod each is.
//!
//! A cgroup is known before it gets the programs and after it lost them: programs that do not know one let everything
//! pass.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use abi::PolicyPod;
use abi::policy::POD_UID_LEN;
use zerocopy::FromZeros as _;

use crate::link::{CGROUP_PROGRAMS, CgroupPin, remove_link};
use crate::pins::{self, Pins};
use crate::sys::{self, Target};
use crate::table::Hash;
use crate::{Error, spec};

/// A directory of a cgroup, and what the kernel calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupAt {
    /// The directory.
    pub path: PathBuf,
    /// The cgroup's identifier: the inode number of the directory.
    pub id: u64,
}

impl CgroupAt {
    /// A directory that is there, of the unified hierarchy.
    ///
    /// # Errors
    ///
    /// [`Error::NoCgroup`] if it is none.
    pub fn open(path: &Path) -> Result<CgroupAt, Error> {
        let (_, id) = pins::open_cgroup(path)?;
        Ok(CgroupAt {
            path: path.to_owned(),
            id,
        })
    }
}

/// The agent's hold on those cgroups. What it attached outlives it.
#[derive(Debug)]
pub struct PodCgroups {
    pins: Pins,
    cgroups: Hash<u64, u32>,
    pods: Hash<u32, PolicyPod>,
}

impl PodCgroups {
    pub(crate) fn open(pins: &Pins, read_only: bool) -> Result<Self, Error> {
        Ok(PodCgroups {
            pins: pins.clone(),
            cgroups: Hash::open(pins, spec::POLICY_CGROUPS, read_only)?,
            pods: Hash::open(pins, spec::POLICY_PODS, read_only)?,
        })
    }

    /// The pods, by the numbers that stand for the indexes of their links.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn pods(&self) -> Result<BTreeMap<u32, PolicyPod>, Error> {
        Ok(self.pods.entries(usize::MAX)?.into_iter().collect())
    }

    /// Notes a pod whose cgroup was not found.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Table`].
    pub fn note(&self, link: u32, uid: &str) -> Result<(), Error> {
        self.put(link, 0, uid)
    }

    /// Has the packets of a cgroup judged by what holds for the pod with that number.
    ///
    /// # Errors
    ///
    /// [`Error::NoCgroup`] if the cgroup is gone or another one is there now; [`Error::Full`], [`Error::Table`],
    /// [`Error::Attach`].
    pub fn hold(&self, link: u32, uid: &str, cgroup: &CgroupAt) -> Result<(), Error> {
        let (directory, id) = pins::open_cgroup(&cgroup.path)?;
        if id != cgroup.id {
            return Err(Error::NoCgroup {
                path: cgroup.path.clone(),
            });
        }
        let put = self.cgroups.insert(&[id], &[link]);
        put.map_err(|(_, error)| error)?;
        for (program, attach_type) in CGROUP_PROGRAMS {
            self.attach(program, attach_type, &directory, cgroup)?;
        }
        self.put(link, id, uid)
    }

    /// Lets go of a pod, and of its cgroup, which may be gone.
    ///
    /// # Errors
    ///
    /// [`Error::Path`], [`Error::Table`].
    pub fn release(&self, link: u32) -> Result<(), Error> {
        let held = self.cgroups.entries(usize::MAX)?;
        let ids: Vec<u64> = held
            .into_iter()
            .filter(|(_, of)| *of == link)
            .map(|(id, _)| id)
            .collect();
        for cgroup in &ids {
            for (program, _) in CGROUP_PROGRAMS {
                let pin = CgroupPin {
                    program,
                    cgroup: *cgroup,
                };
                remove_link(&self.pins.link(&pin.to_string()))?;
            }
        }
        self.cgroups.remove(&ids).map_err(|(_, error)| error)?;
        self.pods.remove(&[link]).map_err(|(_, error)| error)
    }

    fn attach(
        &self,
        program: &'static str,
        attach_type: u32,
        directory: &OwnedFd,
        cgroup: &CgroupAt,
    ) -> Result<(), Error> {
        let pin = CgroupPin {
            program,
            cgroup: cgroup.id,
        };
        let path = self.pins.link(&pin.to_string());
        if let Some(link) = pins::open(&path)?
            && sys::link_info(link.as_fd()).is_ok_and(|it| it.target == Target::Cgroup(cgroup.id))
        {
            return Ok(());
        }
        let fd = pins::open(&self.pins.program(program))?.ok_or(Error::NoProgram { program })?;
        let link =
            sys::link_cgroup(fd.as_fd(), directory.as_fd(), attach_type).map_err(|source| {
                Error::Attach {
                    program,
                    to: format!("cgroup {}", cgroup.path.display()),
                    source,
                }
            })?;
        pins::replace(link.as_fd(), &path)
    }

    fn put(&self, link: u32, cgroup: u64, uid: &str) -> Result<(), Error> {
        let mut pod = PolicyPod::new_zeroed();
        pod.cgroup = cgroup;
        let len = uid.len().min(POD_UID_LEN);
        pod.uid[..len].copy_from_slice(&uid.as_bytes()[..len]);
        let put = self.pods.insert(&[link], &[pod]);
        put.map_err(|(_, error)| error)
    }
}

/// The identifier that a pod's cgroup is named after.
#[must_use]
pub fn pod_uid(pod: &PolicyPod) -> String {
    let end = pod.uid.iter().position(|octet| *octet == 0);
    String::from_utf8_lossy(&pod.uid[..end.unwrap_or(POD_UID_LEN)]).into_owned()
}
