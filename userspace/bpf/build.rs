//! Finds the object with the kernel programs, so that it becomes part of the binary.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=FAIRLEAD_BPF_OBJECT");
    let object = std::env::var_os("FAIRLEAD_BPF_OBJECT").map_or_else(
        || {
            let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            here.join("../../target/bpf/fairlead.o")
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
