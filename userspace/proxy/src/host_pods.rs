//! Pods that use the node's network: where their cgroups are, and which numbers stand for the links that they do not have.
//!
//! A cgroup is looked for below the root of the unified hierarchy as kubelet names it, with its systemd driver
//! (`kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice`, underscores for the dashes of the UID) and
//! its cgroupfs driver (`kubepods/burstable/podUID`); `kubepods` may lie below other cgroups, whose names systemd puts
//! before its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use abi::policy::CGROUP_LINK;
use bpf::{CgroupAt, PodCgroups};
use model::policy::PodKey;
use tracing::{info, warn};

/// Cgroups between the root and `kubepods`, at most.
const DEPTH_MAX: usize = 4;
/// Cgroups that are looked into for `kubepods`, at most.
const LOOKED_MAX: usize = 10_000;
/// The classes of pods that have a cgroup between them and `kubepods`; the rest, guaranteed ones, have none.
const CLASSES: [&str; 2] = ["burstable", "besteffort"];

/// Pods that are to be held to policies, and what is known of each.
#[derive(Debug)]
pub(crate) struct HostPods {
    root: PathBuf,
    pods: BTreeMap<PodKey, Found>,
    /// Numbers that the kernel knows, by the pod's identifier; they are kept.
    numbers: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    uid: String,
    link: u32,
    /// `None` where there is none.
    cgroup: Option<CgroupAt>,
    /// What the kernel was told of it.
    held: Option<Option<CgroupAt>>,
    /// Why it cannot be held.
    refused: Option<String>,
}

impl HostPods {
    /// Starts with the numbers that an earlier process gave.
    pub(crate) fn new(root: &Path, table: &PodCgroups) -> Result<Self, bpf::Error> {
        let numbers = table.pods()?.into_iter();
        Ok(HostPods {
            root: root.to_owned(),
            pods: BTreeMap::new(),
            numbers: numbers
                .map(|(link, pod)| (bpf::pod_uid(&pod), link))
                .collect(),
        })
    }

    /// Looks for the cgroups of these pods, by their identifiers. Says whether anything is not as it was.
    pub(crate) fn look(&mut self, wanted: &BTreeMap<PodKey, String>) -> bool {
        let before = self.pods.len();
        self.pods
            .retain(|key, found| wanted.get(key) == Some(&found.uid));
        let mut changed = before != self.pods.len();
        let mut roots = None;
        for (key, uid) in wanted {
            let known = self.pods.get(key).and_then(|found| found.cgroup.clone());
            let cgroup = match known {
                Some(at) if CgroupAt::open(&at.path).as_ref().ok() == Some(&at) => Some(at),
                Some(_) | None => {
                    let roots = roots.get_or_insert_with(|| kubepods(&self.root));
                    roots.iter().find_map(|root| find(root, uid))
                }
            };
            match self.pods.get_mut(key) {
                Some(found) if found.cgroup == cgroup => {}
                Some(found) => {
                    found.cgroup = cgroup;
                    changed = true;
                }
                None => {
                    let link = self.number(uid);
                    let found = Found {
                        uid: uid.clone(),
                        link,
                        cgroup,
                        held: None,
                        refused: None,
                    };
                    self.pods.insert(key.clone(), found);
                    changed = true;
                }
            }
        }
        changed
    }

    fn number(&mut self, uid: &str) -> u32 {
        if let Some(link) = self.numbers.get(uid) {
            return *link;
        }
        let taken: BTreeSet<u32> = self.numbers.values().copied().collect();
        let free = (CGROUP_LINK | 1..).find(|link| !taken.contains(link));
        let link = free.unwrap_or(CGROUP_LINK);
        self.numbers.insert(uid.to_owned(), link);
        link
    }

    /// What stands for the links of the pods.
    pub(crate) fn links(&self) -> BTreeMap<PodKey, u32> {
        let pods = self.pods.iter();
        pods.map(|(key, found)| (key.clone(), found.link)).collect()
    }

    /// Whether some have no cgroup, so that it is worth looking again soon.
    pub(crate) fn misses(&self) -> bool {
        self.pods.values().any(|found| found.cgroup.is_none())
    }

    /// Whether the kernel refused some.
    pub(crate) fn refuses(&self) -> bool {
        self.pods.values().any(|found| found.refused.is_some())
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Why policies do not hold for a pod; `None` where they do.
    pub(crate) fn trouble(&self, key: &PodKey) -> Option<String> {
        let found = self.pods.get(key)?;
        match (&found.cgroup, &found.refused) {
            (_, Some(refused)) => Some(refused.clone()),
            (None, None) => Some(format!(
                "no cgroup of a pod {} is below {}",
                found.uid,
                self.root.display()
            )),
            (Some(_), None) => None,
        }
    }

    /// Lets go of pods that are not to be held any more, while what holds for them still stands in the tables.
    pub(crate) fn release(&mut self, table: &PodCgroups) -> Result<(), bpf::Error> {
        let wanted: BTreeSet<u32> = self.pods.values().map(|found| found.link).collect();
        let gone = self
            .numbers
            .iter()
            .filter(|(_, link)| !wanted.contains(link));
        let gone: Vec<(String, u32)> = gone.map(|(uid, link)| (uid.clone(), *link)).collect();
        for (uid, link) in gone {
            table.release(link)?;
            info!(
                uid,
                "a pod of the node's network is not held to policies any more"
            );
            self.numbers.remove(&uid);
        }
        Ok(())
    }

    /// Holds the pods to what stands for them in the tables by now.
    pub(crate) fn hold(&mut self, table: &PodCgroups) {
        for (key, found) in &mut self.pods {
            if found.held.as_ref() == Some(&found.cgroup) && found.refused.is_none() {
                continue;
            }
            let done = match &found.cgroup {
                Some(cgroup) => {
                    // One of before may be gone, or another's by now.
                    let moved = matches!(&found.held, Some(Some(before)) if before != cgroup);
                    let released = if moved {
                        table.release(found.link)
                    } else {
                        Ok(())
                    };
                    released.and_then(|()| table.hold(found.link, &found.uid, cgroup))
                }
                None => {
                    let released = table.release(found.link);
                    released.and_then(|()| table.note(found.link, &found.uid))
                }
            };
            match done {
                Ok(()) => {
                    match &found.cgroup {
                        Some(cgroup) => info!(
                            pod = %key, cgroup = %cgroup.path.display(),
                            "policies hold for a pod of the node's network"
                        ),
                        None => warn!(
                            pod = %key, uid = found.uid, root = %self.root.display(),
                            "policies do not hold for a pod of the node's network: its cgroup is not found"
                        ),
                    }
                    found.held = Some(found.cgroup.clone());
                    found.refused = None;
                }
                Err(error) => {
                    let words = error.to_string();
                    if found.refused.as_ref() != Some(&words) {
                        warn!(
                            pod = %key, error = &error as &dyn std::error::Error,
                            "policies do not hold for a pod of the node's network"
                        );
                    }
                    found.refused = Some(words);
                }
            }
        }
    }
}

/// Whether a cgroup of this name holds those of pods.
fn is_kubepods(name: &str) -> bool {
    let stem = name.strip_suffix(".slice").unwrap_or(name);
    stem == "kubepods" || name.ends_with(".slice") && stem.ends_with("-kubepods")
}

/// Every `kubepods` below a cgroup, the nearest first.
fn kubepods(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut level = vec![root.to_owned()];
    let mut looked = 0;
    for _ in 0..=DEPTH_MAX {
        let mut next = Vec::new();
        for dir in &level {
            looked += 1;
            if looked > LOOKED_MAX {
                return found;
            }
            // Cgroups come and go meanwhile.
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            for entry in entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())) {
                match entry.file_name().to_str() {
                    Some(name) if is_kubepods(name) => found.push(entry.path()),
                    _ => next.push(entry.path()),
                }
            }
        }
        level = next;
    }
    found
}

/// The cgroup of a pod below `kubepods`.
fn find(kubepods: &Path, uid: &str) -> Option<CgroupAt> {
    // What is no identifier could lead anywhere.
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    if uid.is_empty() || uid.len() > abi::policy::POD_UID_LEN || !uid.bytes().all(plain) {
        return None;
    }
    let paths = candidates(kubepods, uid);
    paths.iter().find_map(|path| CgroupAt::open(path).ok())
}

fn candidates(kubepods: &Path, uid: &str) -> Vec<PathBuf> {
    let name = kubepods.file_name().and_then(|name| name.to_str());
    let Some(stem) = name.and_then(|name| name.strip_suffix(".slice")) else {
        let classes = CLASSES.iter().map(|class| kubepods.join(class));
        let parents = classes.chain([kubepods.to_owned()]);
        return parents.map(|dir| dir.join(format!("pod{uid}"))).collect();
    };
    let pod = format!("pod{}.slice", uid.replace('-', "_"));
    let classes = CLASSES.iter().map(|class| {
        let stem = format!("{stem}-{class}");
        kubepods
            .join(format!("{stem}.slice"))
            .join(format!("{stem}-{pod}"))
    });
    classes
        .chain([kubepods.join(format!("{stem}-{pod}"))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b5bf7e1-6a1f-4d0c-9c2a-3a1f6e0d7c11";
    const UNDERSCORED: &str = "0b5bf7e1_6a1f_4d0c_9c2a_3a1f6e0d7c11";

    #[test]
    fn cgroups_of_pods_have_kubelets_names() {
        let below = |root: &str, path: &str| {
            let all = candidates(Path::new(root), UID);
            all.contains(&Path::new(root).join(path))
        };
        for (root, path) in [
            ("/c/kubepods", format!("pod{UID}")),
            ("/c/kubepods", format!("burstable/pod{UID}")),
            ("/c/kubepods", format!("besteffort/pod{UID}")),
            (
                "/c/kubepods.slice",
                format!("kubepods-pod{UNDERSCORED}.slice"),
            ),
            (
                "/c/kubepods.slice",
                format!("kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice"),
            ),
            (
                "/c/kubelet-kubepods.slice",
                format!(
                    "kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UNDERSCORED}.slice"
                ),
            ),
        ] {
            assert!(below(root, &path), "{root} {path}");
        }
    }

    #[test]
    fn kubepods_are_found_below_other_cgroups() {
        let root = std::env::temp_dir().join(format!("fairlead-kubepods-{}", std::process::id()));
        for path in [
            "system.slice/sshd.service",
            "kubepods.slice/kubepods-burstable.slice",
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice",
            "docker/0123/kubepods/burstable",
            "a/b/c/d/e/kubepods",
        ] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        let found = kubepods(&root);
        fs::remove_dir_all(&root).unwrap();
        let expected = [
            "kubepods.slice",
            "kubelet.slice/kubelet-kubepods.slice",
            "docker/0123/kubepods",
        ];
        assert_eq!(found, expected.map(|path| root.join(path)));
    }

    #[test]
    fn what_is_no_identifier_leads_nowhere() {
        for uid in ["", "..", "a/../../b", "a_b", &"a".repeat(65)] {
            assert_eq!(
                find(Path::new("/sys/fs/cgroup/kubepods"), uid),
                None,
                "{uid}"
            );
        }
    }
}
