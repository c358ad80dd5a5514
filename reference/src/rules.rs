//! Every number and comparison of the text, each by itself, so that each can be wrong by itself.

/// The rules. [`Rules::default`] is what the design says; [`mutants`](crate::mutants) changes one
/// of them at a time.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Ethernet types of VLAN tags.
    pub tag_types: Vec<u16>,
    /// Tags that are walked.
    pub most_tags: usize,
    /// Bytes of a tag.
    pub tag_length: usize,
    /// The Ethernet type of a PPPoE session.
    pub session_type: u16,
    /// Bytes of its header, before the number of what it carries.
    pub session_header: usize,
    /// That number may be one byte.
    pub short_numbers: bool,
    /// Those of IPv4 and IPv6.
    pub session_numbers: (u8, u8),
    /// A packet of this host's own that comes back has no Ethernet header.
    pub looped: bool,

    /// Bytes in a unit of the IPv4 header length.
    pub ipv4_unit: usize,
    /// Units that an IPv4 header has at least.
    pub ipv4_least_units: usize,
    /// Whether the version in an IP header must be that of the Ethernet type.
    pub version_counts: bool,
    /// Bits of an IPv4 fragment offset.
    pub ipv4_offset_bits: u16,
    /// The IPv4 flag of more fragments.
    pub ipv4_more: u16,

    /// Extension headers with a length in units of 8 bytes.
    pub extensions: Vec<u8>,
    /// The Authentication Header.
    pub authentication: u8,
    /// Units of 4 bytes in it beyond those that its length counts.
    pub authentication_extra: usize,
    /// The Fragment header.
    pub fragment_header: u8,
    /// Extension headers that are walked.
    pub most_extensions: usize,
    /// Units of 8 bytes in an extension header beyond those that its length counts.
    pub extension_extra: usize,
    /// Bits of an IPv6 fragment offset.
    pub ipv6_offset_bits: u16,
    /// The IPv6 flag of more fragments.
    pub ipv6_more: u16,
    /// An IPv6 atomic fragment is a whole packet.
    pub atomic_is_whole: bool,
    /// A first piece ends where it says.
    pub first_piece_ends: bool,

    /// Guarded protocols: TCP, UDP, UDP-Lite.
    pub tcp: u8,
    /// UDP.
    pub udp: u8,
    /// UDP-Lite.
    pub udp_lite: u8,
    /// ICMP, by the family's own number.
    pub icmp: (u8, u8),
    /// Where the source port stands in a transport header.
    pub source_port_at: usize,
    /// Bytes of a transport header that must be there.
    pub ports_length: usize,
    /// Where the TCP flags stand.
    pub flags_at: usize,

    /// ICMP types that quote a packet.
    pub icmp_errors: Vec<u8>,
    /// The first ICMPv6 type that quotes none.
    pub first_icmpv6_info: u8,
    /// Where the quoted packet stands.
    pub quote_at: usize,
    /// The quoted packet's source is this host.
    pub quoted_source_is_local: bool,
    /// A quoted later fragment is about no port.
    pub quoted_later_is_unrelated: bool,
    /// The type of the IPv4 message about which no error is expected.
    pub unreported: u8,
    /// Nothing is known of packets to the remote ports of tunnels, so errors about them pass.
    pub errors_about_tunnels_pass: bool,
    /// Errors about a query to a group pass while its answers do.
    pub errors_about_queries_pass: bool,
    /// An error is routed as what it is, not as what it quotes.
    pub errors_are_icmp: bool,
    /// An ICMP error leaves its flow alone.
    pub error_changes_nothing: bool,
    /// Trust asks who sent an ICMP error, not who the peer of the flow is.
    pub sender_of_error_is_trusted: bool,

    /// The range's first port is guarded.
    pub first_port_guarded: bool,
    /// The range's last port is guarded.
    pub last_port_guarded: bool,
    /// Reserved ports are exempt.
    pub reserved_exempt: bool,
    /// Exposed ports are exempt, for their protocol alone.
    pub exposed_by_protocol: bool,
    /// UDP-Lite ports are exposed with those of UDP.
    pub udp_lite_as_udp: bool,
    /// The kernel receives at one address, or at those of one family.
    pub kernel_address_counts: bool,
    /// What the kernel receives on a port is UDP.
    pub kernel_by_protocol: bool,

    /// A port that no flow uses has none.
    pub occupancy_counts: bool,
    /// Epochs back that are fresh.
    pub fresh_back: u8,
    /// Epochs ahead that are fresh.
    pub fresh_ahead: u8,
    /// What is sent marks its port, also when the flow is known.
    pub known_marks: bool,
    /// What is sent marks its port, also when there was no room for the flow.
    pub failed_marks: bool,
    /// A query marks its port for queries.
    pub query_marks: bool,

    /// The local address belongs to the flow.
    pub local_address_counts: bool,
    /// The remote port belongs to the flow.
    pub remote_port_counts: bool,
    /// `--udp-filter address` is about TCP too.
    pub by_address_tcp: bool,
    /// Ages up to the timer's length are alive; otherwise only those below it.
    pub alive_at_limit: bool,
    /// A clock ahead counts as no age.
    pub ages_saturate: bool,

    /// A RST opens a flow.
    pub rst_opens: bool,
    /// A SYN-ACK opens a flow.
    pub syn_ack_opens: bool,
    /// A SYN that is sent restarts its flow.
    pub syn_restarts: bool,
    /// A RST starts the transitory timer.
    pub rst_is_transitory: bool,
    /// Each further RST starts it again.
    pub rst_restarts_timer: bool,
    /// Any packet but a RST cancels a RST.
    pub rst_is_cancelled: bool,
    /// FINs that make a flow transitory.
    pub fins_needed: u8,
    /// A packet of the peer makes an opening flow established.
    pub receiving_establishes: bool,
    /// What is received keeps its flow alive.
    pub received_refreshes: bool,
    /// What is sent keeps its flow alive.
    pub sent_refreshes: bool,
    /// The first packet of a flow that ends it at once is remembered as a FIN.
    pub opening_fin_counts: bool,
    /// The remote port of DNS.
    pub dns: u16,
    /// DNS over UDP-Lite is DNS.
    pub dns_udp_lite: bool,

    /// Any neighbour may answer a query to a group.
    pub answers_on_link: bool,
    /// A query is of one local address.
    pub query_of_address: bool,
    /// The ports of a DHCP client and of a server: any server may answer, to any address.
    pub dhcp: (u16, u16),
    /// DHCP servers must be on the link too.
    pub dhcp_on_link: bool,
    /// A DHCP request is of one local address.
    pub dhcp_of_address: bool,
    /// What is so over IPv4 is so over IPv6.
    pub dhcp_ipv6: bool,
    /// A query over UDP-Lite is one.
    pub query_udp_lite: bool,
    /// A frame to the broadcast MAC address is to a group.
    pub ethernet_groups: bool,
    /// So is one to any other Ethernet group.
    pub ethernet_multicast: bool,
    /// The first byte of IPv4 multicast, without its last four bits.
    pub ipv4_groups: u8,
    /// The limited broadcast address is a group.
    pub broadcast_is_group: bool,
    /// Tunnels are UDP alone.
    pub tunnels_udp_only: bool,

    /// A refused first fragment is remembered for its later ones.
    pub fragments_remembered: bool,
    /// An accepted one clears that.
    pub acceptance_clears: bool,
    /// A later one is refused at the very end of the time too.
    pub denied_at_limit: bool,
    /// IPv4 datagrams differ by protocol.
    pub ipv4_fragment_protocol: bool,
    /// IPv6 datagrams differ by protocol.
    pub ipv6_fragment_protocol: bool,
    /// Datagrams differ by identification.
    pub fragment_id_counts: bool,

    /// A listener is no reason for a rescue.
    pub listeners_rescue: bool,
    /// Groups are not another host's.
    pub groups_are_local: bool,
    /// A packet to the unspecified IPv4 address is a broadcast.
    pub unspecified_is_local: bool,
    /// An error is forwarded to its own destination, not to where it says its packet came from.
    pub errors_go_by_destination: bool,
    /// The interface's own addresses are not another host's.
    pub own_is_local: bool,
    /// The local table counts.
    pub local_table_counts: bool,
    /// A packet that the firewall may lead to a socket here is another host's.
    pub proxies_count: bool,
    /// Where frames of others are bridged, the MAC address says whose a frame is.
    pub links_count: bool,
    /// A multicast MAC address does not say whose a frame is.
    pub group_links_are_nobodys: bool,
    /// What a container above the interface sends is not recorded.
    pub containers_are_not_recorded: bool,
    /// A forwarded packet is recorded only where its source is this host's.
    pub passing_is_not_recorded: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            tag_types: vec![0x8100, 0x88a8],
            most_tags: 4,
            tag_length: 4,
            session_type: 0x8864,
            session_header: 6,
            short_numbers: true,
            session_numbers: (0x21, 0x57),
            looped: true,
            ipv4_unit: 4,
            ipv4_least_units: 5,
            version_counts: true,
            ipv4_offset_bits: 0x1fff,
            ipv4_more: 0x2000,
            extensions: vec![0, 43, 60],
            authentication: 51,
            authentication_extra: 2,
            fragment_header: 44,
            most_extensions: 8,
            extension_extra: 1,
            ipv6_offset_bits: 0xfff8,
            ipv6_more: 1,
            atomic_is_whole: true,
            first_piece_ends: true,
            tcp: 6,
            udp: 17,
            udp_lite: 136,
            icmp: (1, 58),
            source_port_at: 0,
            ports_length: 4,
            flags_at: 13,
            icmp_errors: vec![3, 4, 5, 11, 12],
            first_icmpv6_info: 128,
            quote_at: 8,
            quoted_source_is_local: true,
            quoted_later_is_unrelated: true,
            unreported: 0,
            errors_about_tunnels_pass: true,
            errors_about_queries_pass: true,
            errors_are_icmp: true,
            error_changes_nothing: true,
            sender_of_error_is_trusted: true,
            first_port_guarded: true,
            last_port_guarded: true,
            reserved_exempt: true,
            exposed_by_protocol: true,
            udp_lite_as_udp: true,
            kernel_address_counts: true,
            kernel_by_protocol: true,
            occupancy_counts: true,
            fresh_back: 1,
            fresh_ahead: 1,
            known_marks: true,
            failed_marks: true,
            query_marks: true,
            local_address_counts: true,
            remote_port_counts: true,
            by_address_tcp: false,
            alive_at_limit: true,
            ages_saturate: true,
            rst_opens: false,
            syn_ack_opens: false,
            syn_restarts: true,
            rst_is_transitory: true,
            rst_restarts_timer: false,
            rst_is_cancelled: true,
            fins_needed: 2,
            receiving_establishes: true,
            received_refreshes: true,
            sent_refreshes: true,
            opening_fin_counts: true,
            dns: 53,
            dns_udp_lite: false,
            answers_on_link: true,
            query_of_address: true,
            dhcp: (68, 67),
            dhcp_on_link: false,
            dhcp_of_address: false,
            dhcp_ipv6: false,
            query_udp_lite: false,
            ethernet_groups: true,
            ethernet_multicast: false,
            ipv4_groups: 0xe0,
            broadcast_is_group: true,
            tunnels_udp_only: true,
            fragments_remembered: true,
            acceptance_clears: true,
            denied_at_limit: true,
            ipv4_fragment_protocol: true,
            ipv6_fragment_protocol: false,
            fragment_id_counts: true,
            listeners_rescue: false,
            groups_are_local: true,
            unspecified_is_local: true,
            errors_go_by_destination: true,
            own_is_local: true,
            local_table_counts: true,
            proxies_count: true,
            links_count: true,
            group_links_are_nobodys: true,
            containers_are_not_recorded: true,
            passing_is_not_recorded: true,
        }
    }
}
