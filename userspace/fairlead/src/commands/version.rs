//! `fairlead version`

use serde::Serialize;

use crate::cli::Output;
use crate::output::{self, Format};

/// What this binary is.
#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// Version of the kernel tables' layout, part of the pin path.
    layout: u32,
    /// The Kubernetes API that the server speaks.
    kubernetes: String,
    platform: String,
}

pub(crate) fn run(flags: &Output) -> anyhow::Result<()> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        layout: abi::LAYOUT_VERSION,
        kubernetes: apiserver::kubernetes_version(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    };
    match flags.output {
        Format::Table => output::emit(&format!(
            "fairlead {} (Kubernetes {}, layout v{}, {})\n",
            version.version, version.kubernetes, version.layout, version.platform
        )),
        format @ (Format::Json | Format::Yaml) => output::document(&version, format),
    }
}
