//! Links in a network namespace of the test's own. Needs root.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use net::{Change, Link, Links, Netns};

/// Runs `ip` in the namespace of this thread.
fn ip(args: &str) {
    let status = Command::new("ip")
        .args(args.split(' '))
        .status()
        .expect("the ip command of iproute2 is installed");
    assert!(status.success(), "ip {args}");
}

fn in_new_namespace<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    Netns::create()
        .expect("root may make network namespaces")
        .run(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work())
        })
        .unwrap()
}

/// Takes changes until one is wanted.
async fn wait_for(links: &mut Links, wanted: impl Fn(&Change) -> bool) -> Change {
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let change = links.next().await.expect("the kernel keeps talking");
            if wanted(&change) {
                return change;
            }
        }
    })
    .await
    .expect("the change is reported within ten seconds")
}

fn named<'a>(links: &'a [Link], name: &str) -> &'a Link {
    links
        .iter()
        .find(|link| link.name == name)
        .unwrap_or_else(|| panic!("no link {name} in {links:?}"))
}

#[test]
fn links_and_their_changes_are_seen() {
    in_new_namespace(async || {
        let mut links = Links::open().unwrap();
        let first = links.list().await.unwrap();
        assert!(named(&first, "lo").loopback, "{first:?}");
        assert!(!named(&first, "lo").up);

        ip("link add here type veth peer name there");
        let appeared = wait_for(
            &mut links,
            |change| matches!(change, Change::Link(link) if link.name == "here"),
        )
        .await;
        let Change::Link(here) = appeared else {
            unreachable!("filtered above")
        };
        assert_eq!(here.kind.as_deref(), Some("veth"));
        assert!(!here.leads_to_pod(), "both ends are in this namespace");

        ip("addr add 10.1.2.3/24 dev here");
        let ifindex = here.ifindex;
        wait_for(&mut links, |change| {
            *change == Change::Addresses { ifindex }
        })
        .await;

        let pod = Netns::create().unwrap();
        let there = named(&links.list().await.unwrap(), "there").ifindex;
        let holder = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            pod.as_fd().as_raw_fd()
        );
        ip(&format!("link set there netns {holder}"));
        wait_for(
            &mut links,
            |change| matches!(change, Change::Gone { ifindex, .. } if *ifindex == there),
        )
        .await;

        let now = links.list().await.unwrap();
        let here = named(&now, "here");
        assert!(here.leads_to_pod(), "{here:?}");
        assert_eq!(
            here.addresses
                .first()
                .map(|address| (address.addr, address.prefix_len)),
            Some((IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)), 24))
        );

        // The way out of a host that is a container itself.
        ip("link set here up");
        ip("route add default via 10.1.2.9 dev here");
        let now = links.list().await.unwrap();
        let here = named(&now, "here");
        assert!(here.default_route && !here.leads_to_pod(), "{here:?}");
    });
}

#[test]
fn a_namespace_is_entered_on_a_thread_of_its_own() {
    let outside = Netns::current().unwrap().id().unwrap();
    let made = Netns::create().unwrap();
    let inside = made
        .run(|| Netns::current().unwrap().id().unwrap())
        .unwrap();
    assert_eq!(inside, made.id().unwrap());
    assert_ne!(inside, outside);
    assert_eq!(Netns::current().unwrap().id().unwrap(), outside);
}

#[test]
fn a_missing_namespace_is_named() {
    let error = Netns::named("fl-net-not-there").unwrap_err();
    assert!(
        error.to_string().contains("/run/netns/fl-net-not-there"),
        "{error}"
    );
}

/// A mounted file system; unmounted when the test ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_bpffs_is_mounted_where_there_is_none() {
    let dir = tempfile::Builder::new()
        .prefix("fl-net-")
        .tempdir()
        .unwrap();
    let path = dir.path().join("pins");
    assert!(!net::is_bpffs(&path));
    net::ensure_bpffs(&path).unwrap();
    let mounted = Mounted(&path);
    assert!(net::is_bpffs(&path.join("below")));
    net::ensure_bpffs(&path.join("below")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let here = mounts.matches(path.to_str().unwrap()).count();
    assert_eq!(here, 1, "one mount serves what is below");
    drop(mounted);

    std::fs::write(path.join("theirs"), "").unwrap();
    let error = net::ensure_bpffs(&path).unwrap_err();
    assert!(error.to_string().contains("holds files"), "{error}");
    assert!(!net::is_bpffs(&path));

    let error = net::ensure_bpffs(Path::new("/proc/fairlead")).unwrap_err();
    assert!(error.to_string().contains("/proc/fairlead"), "{error}");
}

#[test]
fn the_unified_hierarchy_of_this_host_is_found() {
    let root = net::cgroup2_mount().unwrap();
    assert!(root.join("cgroup.procs").exists(), "{}", root.display());
}

/// A bpffs is given back by who mounted it, and only when nothing is left there.
#[test]
fn our_own_bpffs_goes_when_it_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bpf");
    assert!(!net::release_bpffs(&root).unwrap(), "none was mounted");
    net::ensure_bpffs(&root).unwrap();
    assert!(net::is_bpffs(&root));
    let theirs = root.join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    assert!(!net::release_bpffs(&root.join("fairlead")).unwrap());
    std::fs::remove_dir(theirs).unwrap();
    assert!(net::release_bpffs(&root.join("fairlead")).unwrap());
    assert!(!net::is_bpffs(&root));

    std::process::Command::new("mount")
        .args(["-t", "bpf", "bpf"])
        .arg(&root)
        .status()
        .unwrap();
    assert!(!net::release_bpffs(&root).unwrap(), "somebody else's");
    rustix::mount::unmount(&root, rustix::mount::UnmountFlags::empty()).unwrap();
}
