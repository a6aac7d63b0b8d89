//! A fingerprint of every size and offset, compared with [`crate::LAYOUT_VERSION`] by a test.

use core::mem::{offset_of, size_of};

use crate::{
    Affinity, AffinityKey, Backend, CounterValue, Device, Flow4, Flow6, FlowState4, FlowState6,
    FragmentKey, FragmentPorts, Frontend, FrontendKey4, FrontendKey6, NodeConfig, ReverseSocket,
    ReverseSocketKey, RingSlot,
};

const fn mix(hash: u64, values: &[usize]) -> u64 {
    let mut hash = hash;
    let mut i = 0;
    while i < values.len() {
        hash = (hash ^ values[i] as u64).wrapping_mul(0x0000_0100_0000_01b3); // FNV-1a
        i += 1;
    }
    hash
}

/// The fingerprint of this build's layout.
pub const FINGERPRINT: u64 = {
    let mut h = 0xcbf2_9ce4_8422_2325;
    h = mix(
        h,
        &[
            size_of::<FrontendKey4>(),
            offset_of!(FrontendKey4, port),
            offset_of!(FrontendKey4, scope),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<FrontendKey6>(),
            offset_of!(FrontendKey6, port),
            offset_of!(FrontendKey6, scope),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<Frontend>(),
            offset_of!(Frontend, ring_offset),
            offset_of!(Frontend, flags),
        ],
    );
    h = mix(h, &[size_of::<RingSlot>(), size_of::<CounterValue>()]);
    h = mix(
        h,
        &[
            size_of::<Backend>(),
            offset_of!(Backend, port),
            offset_of!(Backend, service),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<AffinityKey>(),
            offset_of!(AffinityKey, client_kind),
            size_of::<Affinity>(),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<Flow4>(),
            offset_of!(Flow4, sport),
            offset_of!(Flow4, proto),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<Flow6>(),
            offset_of!(Flow6, sport),
            offset_of!(Flow6, proto),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<FlowState4>(),
            offset_of!(FlowState4, service),
            offset_of!(FlowState4, flags),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<FlowState6>(),
            offset_of!(FlowState6, service),
            offset_of!(FlowState6, flags),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<ReverseSocketKey>(),
            offset_of!(ReverseSocketKey, port),
            size_of::<ReverseSocket>(),
        ],
    );
    h = mix(
        h,
        &[
            size_of::<FragmentKey>(),
            offset_of!(FragmentKey, id),
            offset_of!(FragmentKey, family),
            size_of::<FragmentPorts>(),
            size_of::<Device>(),
        ],
    );
    mix(
        h,
        &[
            size_of::<NodeConfig>(),
            offset_of!(NodeConfig, snat_port_min),
        ],
    )
};

#[cfg(test)]
mod tests {
    /// Layout versions that were ever released, with their fingerprints. Never edit a line: add one.
    const RELEASED: &[(u32, u64)] = &[(1, 6_743_477_336_179_718_114)];

    #[test]
    fn a_changed_layout_has_a_new_version() {
        assert_eq!(
            RELEASED.last(),
            Some(&(crate::LAYOUT_VERSION, super::FINGERPRINT)),
            "the layout changed: raise LAYOUT_VERSION and add a line here"
        );
    }
}
