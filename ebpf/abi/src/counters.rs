//! What the programs count: every way that a packet or connection can be dealt with has a name, and metrics,
//! `status` and the manual read this list. Written by the programs, one copy for each CPU, summed by the agent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of counters: per-CPU array, [`Counter`] to [`CounterValue`].
pub const NAME: &str = "COUNTERS";
/// Number of elements: room beyond today's list, so that a new counter needs no new layout.
pub const CAPACITY: u32 = 64;

/// One CPU's share of a counter.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct CounterValue {
    /// Packets, or connects for the socket hooks.
    pub packets: u64,
    /// Bytes from the network header on; zero for the socket hooks.
    pub bytes: u64,
}

labelled! {
    /// A way that a packet or connection was dealt with.
    pub enum Counter: u32 {
        /// A connect was sent to a backend.
        SocketConnect = 0, "socket_connect";
        /// A datagram of an unconnected socket was sent to a backend.
        SocketSend = 1, "socket_send";
        /// A connect or datagram was refused: the service has no endpoint, or no such port.
        SocketNoEndpoint = 2, "socket_no_endpoint";
        /// TC started a flow.
        TcNewFlow = 3, "tc_new_flow";
        /// TC rewrote a packet of a known flow, client to backend.
        TcForward = 4, "tc_forward";
        /// TC rewrote a packet of a known flow, backend to client.
        TcReply = 5, "tc_reply";
        /// TC answered with RST or an ICMP error: the service has no endpoint, or no such port.
        TcNoEndpoint = 6, "tc_no_endpoint";
        /// XDP started a flow.
        XdpNewFlow = 7, "xdp_new_flow";
        /// XDP rewrote a packet of a known flow, client to backend.
        XdpForward = 8, "xdp_forward";
        /// XDP rewrote a packet of a known flow, backend to client.
        XdpReply = 9, "xdp_reply";
        /// XDP left a packet for a service without endpoints, or without such a port, to TC, which answers it.
        XdpNoEndpoint = 10, "xdp_no_endpoint";
        /// Dropped: shorter than its headers say.
        DropTruncated = 11, "drop_truncated";
        /// Dropped: a header field has an impossible value.
        DropMalformed = 12, "drop_malformed";
        /// Dropped: a fragment for a service address whose flow is not known, or of SCTP where its ports would change.
        DropFragment = 13, "drop_fragment";
        /// Dropped: the table of flows refused the entry.
        DropFlowsFull = 14, "drop_flows_full";
        /// Dropped: no free port of this node's for a translated source towards this backend or host.
        DropSnatExhausted = 15, "drop_snat_exhausted";
        /// Dropped: a frontend led to an empty ring slot or backend; the tables are not whole.
        DropNoBackend = 16, "drop_no_backend";
        /// Dropped: the kernel refused a rewrite.
        DropRewrite = 17, "drop_rewrite";
        /// Dropped: source translation is needed and this node has no address of the family.
        DropNoNodeAddress = 18, "drop_no_node_address";
        /// Dropped: this node's routing knows no way on for a packet whose source was translated.
        DropNoRoute = 19, "drop_no_route";
        /// Dropped: its time to live ends here.
        DropTtlExceeded = 20, "drop_ttl_exceeded";
        /// TC sent a packet past the stack's routing, straight to a pod of this node or from one to its next hop;
        /// counted beside what else happened to it.
        TcHostRouted = 21, "tc_host_routed";
        /// TC answered a DNS query.
        TcDnsAnswer = 22, "tc_dns_answer";
        /// XDP answered a DNS query.
        XdpDnsAnswer = 23, "xdp_dns_answer";
        /// Dropped: a traffic policy asks for an endpoint of this node, and there is none.
        DropNoLocalEndpoint = 24, "drop_no_local_endpoint";
        /// Dropped: the client is not in the service's loadBalancerSourceRanges.
        DropSource = 25, "drop_source";
        /// TC gave an ICMP error about a packet of a flow to whoever sent that packet, as one about what it sent.
        TcIcmpError = 26, "tc_icmp_error";
        /// TC answered that a packet is too big for its way on: one whose source was translated, which the stack cannot
        /// answer.
        TcTooBig = 27, "tc_too_big";
        /// Dropped: a pod sent from an address that is none of its own.
        DropForged = 28, "drop_forged";
        /// TC sent a packet to the backend's node as it came, in another packet; counted beside the flow.
        TcTunnelled = 32, "tc_tunnelled";
        /// TC took off what another node had put around a packet; counted beside the flow.
        TcUntunnelled = 33, "tc_untunnelled";
        /// XDP sent a packet to the backend's node as it came, in another packet; counted beside the flow.
        XdpTunnelled = 34, "xdp_tunnelled";
        /// XDP took off what another node had put around a packet; counted beside the flow.
        XdpUntunnelled = 35, "xdp_untunnelled";
        /// TC gave a pod's packet that leaves the cluster this node's address, or an answer to an echo request the pod's.
        TcMasquerade = 36, "tc_masquerade";
        /// Dropped: a pod sends or gets more than the bandwidth that it may.
        DropBandwidth = 37, "drop_bandwidth";
        /// A new flow should have gone to the backend's node as it came (`dsr`), and got this node's source instead: the
        /// backend is on no node of the cluster, or the client in the cluster.
        SnatInstead = 38, "snat_instead_of_dsr";
        /// Dropped: the Service, or its namespace, has as many flows as it may have.
        DropQuota = 39, "drop_quota";
        /// Dropped: the policies of the pod that it is for do not let it in.
        DropPolicyIngress = 40, "drop_policy_ingress";
        /// Dropped: the policies of the pod that it is from do not let it out.
        DropPolicyEgress = 41, "drop_policy_egress";
        /// Dropped: there are policies, and it is not known yet which pod is at the link.
        DropPolicyUnknown = 42, "drop_policy_unknown";
    }
}

const _: () = assert!(Counter::ALL.len() <= CAPACITY as usize);
