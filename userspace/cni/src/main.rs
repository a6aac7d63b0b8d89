//! The plugin alone, for whoever installs no more of Fairlead in a runtime's folder. `fairlead` itself is the same
//! plugin when it is started under this name.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(cni::Plugin::Fairlead)
}
