//! Options of the linker, which is where BPF code is made.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if target == "bpf" {
        // By default it leaves every memset, of three bytes of padding even, as a call of a loop over bytes.
        println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
