//! Finds the object with the kernel programs, so that it becomes part of the binary.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=FAIRLEAD_BPF_OBJECT");
    let object = std::env::var_os("FAIRLEAD_BPF_OBJECT").map_or_else(
        || {
            // Asked at run time: a build directory may be shared between checkouts.
            let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
            PathBuf::from(here).join("../../target/bpf/fairlead.o")
        },
        PathBuf::from,
    );
    println!("cargo:rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(object) => println!("cargo:rustc-env=FAIRLEAD_BPF_OBJECT={}", object.display()),
        Err(error) => panic!(
            "the object with the kernel programs is missing ({}: {error}): run `cargo xtask build`",
            object.display()
        ),
    }
}
