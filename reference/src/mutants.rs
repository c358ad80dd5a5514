//! The rules with one mistake, as it might be made in the code: every comparison must notice each.

use crate::rules::Rules;

/// A mistake.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What the mistaken guard does.
    pub name: &'static str,
    /// Makes the mistake.
    pub change: fn(&mut Rules),
}

impl Mutant {
    /// The rules with this mistake.
    pub fn rules(&self) -> Rules {
        let mut rules = Rules::default();
        (self.change)(&mut rules);
        rules
    }
}

macro_rules! mutants {
    ($($name:literal: $rules:ident => $change:expr;)+) => {
        /// Every mistake.
        pub const ALL: &[Mutant] = &[
            $(Mutant { name: $name, change: |$rules| $change },)+
        ];
    };
}

mutants! {
    "knows no service tags": rules => rules.tag_types = vec![0x8100];
    "knows old tags too": rules => rules.tag_types.push(0x9100);
    "walks three tags": rules => rules.most_tags = 3;
    "walks five tags": rules => rules.most_tags = 5;
    "reads behind the wrong end of a tag": rules => rules.tag_length = 2;

    "does not know PPPoE": rules => rules.session_type = 0x8863;
    "reads a PPPoE session two bytes late": rules => rules.session_header = 8;
    "knows no short numbers of PPP": rules => rules.short_numbers = false;
    "takes IPv6 for IPv4 in a session": rules => rules.session_numbers = (0x57, 0x21);
    "drops what comes back without an Ethernet header": rules => rules.looped = false;

    "reads IPv4 ports at a fixed offset": rules => rules.ipv4_unit = 0;
    "accepts IPv4 headers of four words": rules => rules.ipv4_least_units = 4;
    "refuses IPv4 headers without options": rules => rules.ipv4_least_units = 6;
    "does not look at the version": rules => rules.version_counts = false;
    "takes the evil bit for an offset": rules => rules.ipv4_offset_bits = 0x9fff;
    "loses the highest bit of an IPv4 offset": rules => rules.ipv4_offset_bits = 0x0fff;
    "loses the lowest bit of an IPv4 offset": rules => rules.ipv4_offset_bits = 0x1ffe;
    "takes DF for MF": rules => rules.ipv4_more = 0x4000;

    "does not skip hop-by-hop options": rules => rules.extensions = vec![43, 60];
    "does not skip routing headers": rules => rules.extensions = vec![0, 60];
    "does not skip destination options": rules => rules.extensions = vec![0, 43];
    "does not skip authentication headers": rules => rules.authentication = 255;
    "counts an authentication header in other units": rules => rules.authentication_extra = 1;
    "does not know fragment headers": rules => rules.fragment_header = 255;
    "walks seven extension headers": rules => rules.most_extensions = 7;
    "walks nine extension headers": rules => rules.most_extensions = 9;
    "forgets the first unit of an extension header": rules => rules.extension_extra = 0;
    "takes reserved bits for an IPv6 offset": rules => rules.ipv6_offset_bits = 0xfffe;
    "loses the lowest bit of an IPv6 offset": rules => rules.ipv6_offset_bits = 0xfff0;
    "loses the highest bit of an IPv6 offset": rules => rules.ipv6_offset_bits = 0x7ff8;
    "takes a reserved bit for MF": rules => rules.ipv6_more = 2;
    "takes an atomic fragment for a first one": rules => rules.atomic_is_whole = false;
    "reads on behind a first fragment": rules => rules.first_piece_ends = false;

    "does not guard UDP-Lite": rules => rules.udp_lite = 255;
    "guards DCCP for UDP-Lite": rules => rules.udp_lite = 33;
    "takes ICMP for ICMPv6": rules => rules.icmp = (1, 1);
    "takes ICMPv6 for ICMP": rules => rules.icmp = (58, 58);
    "reads ports two bytes late": rules => {
        rules.source_port_at = 2;
        rules.ports_length = 6;
    };
    "wants eight bytes of a transport header": rules => rules.ports_length = 8;
    "reads TCP flags a byte early": rules => rules.flags_at = 12;

    "takes an echo for an error": rules => rules.icmp_errors.push(8);
    "takes no source quench for an error": rules => rules.icmp_errors = vec![3, 5, 11, 12];
    "takes no redirect for an error": rules => rules.icmp_errors = vec![3, 4, 11, 12];
    "takes ICMPv6 type 127 for information": rules => rules.first_icmpv6_info = 127;
    "takes an ICMPv6 echo for an error": rules => rules.first_icmpv6_info = 129;
    "reads a quote four bytes early": rules => rules.quote_at = 4;
    "takes a quote's destination for this host": rules => rules.quoted_source_is_local = false;
    "reads ports in a quoted later fragment": rules => rules.quoted_later_is_unrelated = false;
    "believes errors about echo replies": rules => rules.unreported = 255;
    "believes no errors about tunnels": rules => rules.errors_about_tunnels_pass = false;
    "believes no errors about queries": rules => rules.errors_about_queries_pass = false;
    "takes an error for what it quotes": rules => rules.errors_are_icmp = false;
    "lets errors change flows": rules => rules.error_changes_nothing = false;
    "trusts the peer for a router": rules => rules.sender_of_error_is_trusted = false;

    "leaves the first port open": rules => rules.first_port_guarded = false;
    "leaves the last port open": rules => rules.last_port_guarded = false;
    "guards reserved ports": rules => rules.reserved_exempt = false;
    "exposes ports for every protocol": rules => rules.exposed_by_protocol = false;
    "exposes UDP-Lite with TCP": rules => rules.udp_lite_as_udp = false;
    "opens a tunnel's port at any address": rules => rules.kernel_address_counts = false;
    "opens a tunnel's port for any protocol": rules => rules.kernel_by_protocol = false;

    "does not ask for occupancy": rules => rules.occupancy_counts = false;
    "forgets the epoch before": rules => rules.fresh_back = 0;
    "remembers two epochs before": rules => rules.fresh_back = 2;
    "does not know the epoch to come": rules => rules.fresh_ahead = 0;
    "knows two epochs to come": rules => rules.fresh_ahead = 2;
    "does not mark the port of a known flow": rules => rules.known_marks = false;
    "does not mark the port of a flow without room": rules => rules.failed_marks = false;
    "does not mark the port of a query": rules => rules.query_marks = false;

    "takes any local address": rules => rules.local_address_counts = false;
    "takes any remote port": rules => rules.remote_port_counts = false;
    "filters TCP by address too": rules => rules.by_address_tcp = true;
    "lets flows die a tick early": rules => rules.alive_at_limit = false;
    "does not know clocks that are ahead": rules => rules.ages_saturate = false;

    "lets a RST open a flow": rules => rules.rst_opens = true;
    "lets a SYN-ACK open a flow": rules => rules.syn_ack_opens = true;
    "does not start a flow anew": rules => rules.syn_restarts = false;
    "ignores a RST": rules => rules.rst_is_transitory = false;
    "lets RSTs prolong a flow": rules => rules.rst_restarts_timer = true;
    "never forgets a RST": rules => rules.rst_is_cancelled = false;
    "ends a flow with one FIN": rules => rules.fins_needed = 1;
    "never ends a flow with FINs": rules => rules.fins_needed = 3;
    "leaves a flow opening": rules => rules.receiving_establishes = false;
    "is not refreshed by the peer": rules => rules.received_refreshes = false;
    "is not refreshed by this host": rules => rules.sent_refreshes = false;
    "forgets a FIN that opens": rules => rules.opening_fin_counts = false;
    "takes another port for DNS": rules => rules.dns = 54;
    "knows DNS over UDP-Lite": rules => rules.dns_udp_lite = true;

    "lets any host answer a query": rules => rules.answers_on_link = false;
    "asks groups from every address": rules => rules.query_of_address = false;
    "takes another port for a DHCP client": rules => rules.dhcp.0 = 69;
    "takes another port for a DHCP server": rules => rules.dhcp.1 = 66;
    "knows no DHCP server from elsewhere": rules => rules.dhcp_on_link = true;
    "asks DHCP servers from every address": rules => rules.dhcp_of_address = true;
    "knows such DHCP over IPv6": rules => rules.dhcp_ipv6 = true;
    "asks groups over UDP-Lite": rules => rules.query_udp_lite = true;
    "does not know Ethernet groups": rules => rules.ethernet_groups = false;
    "takes a gateway of many machines for a group": rules => rules.ethernet_multicast = true;
    "takes class E for groups": rules => rules.ipv4_groups = 0xf0;
    "does not know the broadcast address": rules => rules.broadcast_is_group = false;
    "knows tunnels over every protocol": rules => rules.tunnels_udp_only = false;

    "forgets refused fragments": rules => rules.fragments_remembered = false;
    "does not forgive refused fragments": rules => rules.acceptance_clears = false;
    "forgets refused fragments a tick early": rules => rules.denied_at_limit = false;
    "mixes up protocols of IPv4 fragments": rules => rules.ipv4_fragment_protocol = false;
    "distinguishes IPv6 fragments by protocol": rules => rules.ipv6_fragment_protocol = true;
    "mixes up fragments of all datagrams": rules => rules.fragment_id_counts = false;

    "rescues by listeners": rules => rules.listeners_rescue = true;
    "takes groups for other hosts": rules => rules.groups_are_local = false;
    "takes the unspecified address for another host": rules => rules.unspecified_is_local = false;
    "believes errors about whose they are": rules => rules.errors_go_by_destination = false;
    "takes its own address for another host's": rules => rules.own_is_local = false;
    "does not ask the local table": rules => rules.local_table_counts = false;
    "cuts transparent proxies": rules => rules.proxies_count = false;
    "takes this host's link address for another's": rules => rules.links_count = false;
    "takes groups' link addresses for another's": rules => rules.group_links_are_nobodys = false;
    "records what containers send": rules => rules.containers_are_not_recorded = false;
    "records what passes through": rules => rules.passing_is_not_recorded = false;
}
