//! `load`, which `cargo xtask load` starts: what it says holds, and where it fails it leaves nothing.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;
use testbed::Netns;

fn netns(name: &str) -> Result<Netns> {
    let netns = Netns::create(&format!("{name}-{}", std::process::id()))?;
    // A bridge knows no native XDP.
    netns.ip("link add br0 type bridge")?;
    Ok(netns)
}

fn load(netns: &Netns, device: &str, xdp: &str, root: &Path) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(["--device", device, "--xdp", xdp, "--bpffs-root"]);
    netns.run(|| Ok(command.arg(root).output()?))
}

#[test]
fn what_is_refused_leaves_nothing_and_what_is_loaded_goes_as_it_says() -> Result<()> {
    let netns = netns("fl-load")?;
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("bpf");

    let refused = load(&netns, "br0", "native", &root)?;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.starts_with("load: "), "{said}");
    assert!(!net::is_bpffs(&root), "{said}");

    let loaded = load(&netns, "br0", "generic", &root)?;
    assert!(loaded.status.success(), "{loaded:?}");
    let said = String::from_utf8_lossy(&loaded.stdout);
    let remedy = said.rsplit('`').nth(1).unwrap_or_default();
    let again = load(&netns, "br0", "native", &root)?;
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(root.join("v1").exists(), "what was there before stays");
    let removed = Command::new("sh").args(["-c", remedy]).output()?;
    assert!(removed.status.success(), "{remedy}: {removed:?}");
    assert!(!net::is_bpffs(&root), "{remedy}");
    Ok(())
}

#[test]
fn nothing_is_loaded_that_would_go_with_the_command() -> Result<()> {
    let netns = netns("fl-fleeting")?;
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("bpf");
    let refused = Command::new("ip")
        .args(["netns", "exec", netns.name(), env!("CARGO_BIN_EXE_load")])
        .args(["--device", "br0", "--bpffs-root"])
        .arg(&root)
        .output()?;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("nsenter --net="), "{said}");
    Ok(())
}
