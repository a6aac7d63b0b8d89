//! A host that lacks something, or where something is in the way.

use std::process::Command;

use anyhow::Result;
use bpf::{Datapath, Settings, XdpMode};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use testbed::topology::UPLINK;
use testbed::{Node, wait_for};

use crate::stage::{
    self, Ended, PATIENCE, Running, Stage, bpffs_root, datapath_flags, fairlead, in_node, run,
    start_up, up_flags,
};

/// A kubeconfig of a server that nobody asks, because the start fails before.
const NOBODY: &str = "
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
";

/// Runs `up` to its end, which is a failure.
fn up(node: &Node, flags: &[String]) -> Result<Ended> {
    run(in_node(node)?.arg("up").args(up_flags(node)).args(flags))
}

/// Runs a script in the node's network namespace and in a mount namespace of its own, from which nothing comes
/// back; `"$@"` is the binary with `arguments`.
fn in_own_mounts(node: &Node, script: &str, arguments: &[String]) -> Result<Command> {
    let place = node.place()?.without_cgroup();
    let mut command = place.command("unshare".as_ref())?;
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "sh",
        ])
        .arg(fairlead()?)
        .args(arguments)
        .env_remove("KUBECONFIG");
    Ok(command)
}

#[test]
fn a_missing_capability_is_named() -> Result<()> {
    let node = Node::create()?;
    let file = node.folder().join("nobody");
    std::fs::write(&file, NOBODY)?;
    let kubeconfig = format!("--kubeconfig={}", file.display());
    for (capability, name) in [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    ] {
        let without = |words: &[&str], flags: &[String]| {
            node.netns().run(|| {
                // What is not in this thread's bounding set is not its child's either.
                remove_capability_from_bounding_set(capability)?;
                run(Command::new(fairlead()?).args(words).args(flags))
            })
        };
        let words = [
            &format!("{name} missing"),
            "root, or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
        ];
        without(&["up"], &up_flags(&node))?.assert_refused(1, &words);
        without(&["proxy", &kubeconfig], &datapath_flags(&node))?.assert_refused(1, &words);
    }
    assert!(
        !stage::data_dir(&node).exists(),
        "nothing is made by a start that cannot succeed"
    );
    assert!(!bpffs_root(&node).exists());
    Ok(())
}

#[test]
fn missing_file_systems_are_named() -> Result<()> {
    let node = Node::create()?;
    // Without cgroup2. The last line keeps this from ever reaching the machine's own.
    let script = "umount --all --lazy --types cgroup2; \
                  if grep -q ' - cgroup2 ' /proc/self/mountinfo; then exit 99; fi; exec \"$@\"";
    let flags: Vec<String> = up_flags(&node)
        .into_iter()
        .filter(|flag| !flag.starts_with("--cgroup-root"))
        .collect();
    let arguments = [vec!["up".to_owned()], flags].concat();
    run(&mut in_own_mounts(&node, script, &arguments)?)?
        .assert_refused(1, &["no cgroup2", "mount -t cgroup2", "--cgroup-root"]);

    let folder = node.folder().display().to_string();
    up(&node, &[format!("--cgroup-root={folder}")])?.assert_refused(
        1,
        &[&folder, "not a cgroup", "mount -t cgroup2", "--cgroup-root"],
    );
    up(&node, &["--cgroup-root=/nowhere".to_owned()])?
        .assert_refused(1, &["/nowhere does not exist", "--cgroup-root"]);
    up(&node, &["--bpffs-root=/proc/nowhere".to_owned()])?.assert_refused(
        1,
        &[
            "cannot mount a bpffs at /proc/nowhere",
            "mount -t bpf",
            "--bpffs-root",
        ],
    );
    let file = node.folder().join("file");
    std::fs::write(&file, "")?;
    up(&node, &[format!("--bpffs-root={}", file.display())])?.assert_refused(
        1,
        &["cannot mount a bpffs at", "mount -t bpf", "--bpffs-root"],
    );
    Ok(())
}

#[test]
fn tables_that_the_kernel_cannot_make_are_named() -> Result<()> {
    let node = Node::create()?;
    for (flag, table) in [
        ("--frontends-max", "FRONTENDS"),
        // Of two tables, whichever is made first.
        ("--backends-max", "the table "),
        ("--rings-max", "RINGS"),
    ] {
        let root = format!("--bpffs-root={}", node.bpffs().join(&flag[2..]).display());
        up(&node, &[root, format!("{flag}=4294967295")])?
            .assert_refused(1, &[table, "4294967295 entries", flag]);
    }
    Ok(())
}

#[test]
fn a_device_that_is_not_there_is_named() -> Result<()> {
    let node = Node::create()?;
    let ended = up(&node, &["--devices=uplink,nic7".to_owned()])?;
    ended.assert_refused(1, &["no device nic7", "ip link"]);
    assert_eq!(ended.stdout, "", "it was ready before");
    let left = std::fs::read_dir(bpffs_root(&node)).map_or(0, Iterator::count);
    assert_eq!(left, 0, "pins of a start that failed");
    Ok(())
}

#[test]
fn a_foreign_xdp_program_is_named_and_left_alone() -> Result<()> {
    let node = Node::create()?;
    let settings = Settings {
        bpffs_root: node.bpffs().join("stranger"),
        ..Settings::default()
    };
    let mut stranger = Datapath::open(&settings)?;
    node.netns()
        .run(|| Ok(stranger.attach_device(UPLINK, XdpMode::Native)?))?;
    let theirs = |stranger: &Datapath| -> Result<Vec<bpf::LinkStatus>> {
        let mut links = stranger.status()?.links;
        links.retain(|link| link.hook.starts_with("xdp"));
        Ok(links)
    };
    let before = theirs(&stranger)?;
    assert_eq!(before.len(), 1);
    for xdp in ["auto", "native", "generic"] {
        up(
            &node,
            &["--devices=uplink".to_owned(), format!("--xdp={xdp}")],
        )?
        .assert_refused(
            1,
            &[
                "uplink carries an XDP program that is not ours",
                "device_xdp",
                "bpftool link detach id",
                "--xdp off",
            ],
        );
    }
    assert_eq!(theirs(&stranger)?, before);
    // The remedy that it names.
    let running = start_up(&node, &["--devices=uplink", "--xdp=off"])?;
    running.logged("device=\"uplink\"")?;
    running.assert_terminates()?;
    assert_eq!(theirs(&stranger)?, before);
    Ok(())
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused_and_the_first_goes_on() -> Result<()> {
    let stage = Stage::up(&[])?;
    let root = bpffs_root(&stage.node).display().to_string();
    let file = stage.node.folder().join("nobody");
    std::fs::write(&file, NOBODY)?;
    let owner = format!("pid {}", stage.running()?.process.id());
    let words = [
        root.as_str(),
        "belongs to a running agent",
        &owner,
        "--bpffs-root",
    ];
    let kubeconfig = format!("--kubeconfig={}", file.display());
    for more in [&[][..], &["--cleanup"]] {
        let mut command = in_node(&stage.node)?;
        command
            .args(["proxy", &kubeconfig])
            .args(datapath_flags(&stage.node))
            .args(more);
        run(&mut command)?.assert_refused(1, &words);
    }
    let data = format!("--data-dir={}", stage.node.folder().join("other").display());
    up(&stage.node, &[data, "--secure-port=6444".to_owned()])?.assert_refused(1, &words);
    stage.assert_good()
}

#[test]
fn a_busy_port_is_named() -> Result<()> {
    let stage = Stage::up(&["--metrics-bind-address=127.0.0.1:9090"])?;
    let mut command = in_node(&stage.node)?;
    let other = format!("--data-dir={}", stage.node.folder().join("other").display());
    command.args(["server", "--bind-address=172.31.0.1", &other]);
    run(&mut command)?.assert_refused(1, &["listen on 172.31.0.1:6443", "--secure-port", "in use"]);
    let mut command = in_node(&stage.node)?;
    command
        .args(["proxy", "--metrics-bind-address=127.0.0.1:9090"])
        .args(datapath_flags(&stage.node))
        .arg(format!(
            "--bpffs-root={}",
            stage.node.bpffs().join("other").display()
        ))
        .env("KUBECONFIG", stage::kubeconfig(&stage.node));
    run(&mut command)?.assert_refused(1, &["127.0.0.1:9090", "--metrics-bind-address", "in use"]);
    stage.assert_good()
}

/// On a machine without a bpffs, with no flag but the one that keeps this test to its own cgroup: what it needs is
/// made or found, and no device is touched but the links of pods.
#[test]
fn a_start_without_flags_touches_no_device_but_pod_links() -> Result<()> {
    let node = Node::create()?;
    let pod = node.add_pod("web")?;
    // A network card that nobody named, and the node's way out, a veth as in a container.
    node.netns().ip(
        "link add nic0 type veth peer name nic1\nlink set nic0 up\naddr add 192.0.2.1/24 dev nic0\nroute add default via 172.31.0.2 dev uplink\n",
    )?;
    let script = "umount --all --lazy --types bpf; mount -t tmpfs none /var/lib; exec \"$@\"";
    let arguments = [
        "up".to_owned(),
        format!("--cgroup-root={}", node.cgroup().display()),
    ];
    let mut command = in_own_mounts(&node, script, &arguments)?;
    let mut running = Running::start(&mut command, &stage::log_file(&node))?;
    assert_eq!(running.ready()?, "https://127.0.0.1:6443");
    running.logged(&format!("device=\"{}\"", pod.device()))?;
    // Its mount namespace is seen through the process.
    let root = format!("/proc/{}/root", running.process.id());
    let pins = std::path::PathBuf::from(format!("{root}/sys/fs/bpf/fairlead"));
    let links = wait_for("the links", PATIENCE, || {
        Some(Datapath::inspect(&pins).ok()?.status().ok()?.links)
    })?;
    for link in links {
        match link.on {
            bpf::Place::Device { name, .. } => assert_eq!(name, pod.device(), "{}", link.hook),
            bpf::Place::Cgroup { .. } => assert_eq!(link.hook, "cgroup"),
            bpf::Place::Gone { was } => panic!("{was}"),
        }
    }
    for made in [
        "var/lib/fairlead/store",
        "var/lib/fairlead/pki",
        "sys/fs/bpf/fairlead",
    ] {
        assert!(std::path::Path::new(&root).join(made).is_dir(), "{made}");
    }
    running.assert_terminates()
}
