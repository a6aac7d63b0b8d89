//! The demo where it cannot go on.

use std::fs::File;
use std::process::Command;

use anyhow::Result;

#[test]
fn a_demo_that_cannot_print_says_so() -> Result<()> {
    let demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args([
            "--fairlead",
            "/nonexistent",
            "--examples",
            "/nonexistent",
            "--once",
        ])
        .stdout(File::options().write(true).open("/dev/full")?)
        .output()?;
    let said = String::from_utf8_lossy(&demo.stderr);
    assert_eq!(demo.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot print what happens"), "{said}");
    Ok(())
}
