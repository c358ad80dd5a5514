//! What is written over a template, frame by frame: the bench fills it in, its programs follow it.

/// How one frame differs from the next. Ports are in host byte order; offsets are from the start
/// of the frame, and 0 stands for a field that stays as it is.
///
/// Flow `i` has the local port `flow_port + i % flow_ports` and the remote port
/// `remote_port + i / flow_ports`.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Recipe {
    /// The interface that the generator sends by.
    pub interface: u32,
    /// Of 65,536 frames, so many belong to flows. The others come from unsolicited senders, each of whom has
    /// a random address and port.
    pub known_share: u32,
    /// Flows there are: at least 1.
    pub flows: u32,
    /// Local ports that flows use: at least 1.
    pub flow_ports: u32,
    /// The first of them.
    pub flow_port: u32,
    /// The first remote port that flows use.
    pub remote_port: u32,
    /// The last four bytes of the remote address of flows, as they are in memory.
    pub remote_address: u32,
    /// 1 when flows take turns, 0 when each frame's is random.
    pub in_order: u32,
    /// The first local port that unsolicited senders aim at.
    pub unsolicited_port: u32,
    /// How many they aim at: at least 1.
    pub unsolicited_ports: u32,
    /// The last four bytes of the remote address.
    pub address_at: u32,
    /// The local port.
    pub local_port_at: u32,
    /// The remote port.
    pub remote_port_at: u32,
    /// The last two bytes of the identification of a datagram in pieces.
    pub id_at: u32,
    /// The checksum of the IPv4 header.
    pub ip_checksum_at: u32,
    /// The checksum of the transport header.
    pub transport_checksum_at: u32,
    /// The first 16 bytes of a tagged frame, or 0. Anyone who takes the tag off moves the addresses in
    /// memory that the kernel then gives to the next frame as it is.
    pub link: [u32; 4],
}

impl Recipe {
    /// As a share: every frame.
    pub const ALL: u32 = 1 << 16;
}
