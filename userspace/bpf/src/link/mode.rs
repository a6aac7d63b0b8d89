//! How to attach to a device, and what came of it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// How XDP is to be attached, or is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver where it can, else generic.
    #[default]
    Auto,
    /// In the driver, before the kernel allocates anything for a packet.
    Native,
    /// In the kernel's receive path: works on every device, costs more.
    Generic,
    /// Not at all: TC does the work.
    Off,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            XdpMode::Auto => "auto",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Off => "off",
        })
    }
}

impl FromStr for XdpMode {
    type Err = String;

    fn from_str(text: &str) -> Result<XdpMode, String> {
        match text {
            "auto" => Ok(XdpMode::Auto),
            "native" => Ok(XdpMode::Native),
            "generic" => Ok(XdpMode::Generic),
            "off" => Ok(XdpMode::Off),
            other => Err(format!(
                "no XDP mode {other:?}: there are auto, native, generic and off"
            )),
        }
    }
}

/// What was attached to a device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceReport {
    /// Name of the device.
    pub device: String,
    /// Its index.
    pub ifindex: u32,
    /// Whether classifiers hang on TCX; otherwise they are tc filters.
    pub tcx: bool,
    /// How XDP is attached: native, generic, or off.
    pub xdp: XdpMode,
    /// Why XDP is not native, where the device or its driver refused that.
    pub native_refused: Option<String>,
}
