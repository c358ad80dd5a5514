//! Network cards that a machine has to spare: those of the guests that `cargo xtask test --drivers`
//! boots.

use std::{
    env, fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::netns::Direct;

/// How long a card may take to be back where it was.
const PATIENCE: Duration = Duration::from_secs(10);

/// A card, and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    /// What it is called in what tests say.
    pub name: String,
    /// The mode that it is to be guarded in at an MTU of 1500.
    pub usual: String,
    /// The same at an MTU of 9000.
    pub large: String,
    /// Whether frames of 9,000 bytes arrive there without a guard.
    pub long: bool,
    index: u32,
}

/// The cards of this machine, and that of the peer of each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cards {
    /// Those to be guarded.
    pub cards: Vec<Card>,
    peer: u32,
}

impl Cards {
    /// Those that `PORTGUARD_CARDS` tells of, which is what `xtask` says: the address of the peer's
    /// card, then a line for each other. Nothing, with the reason printed, on other machines.
    pub fn of_this_machine() -> Result<Option<Self>> {
        let told = env::var("PORTGUARD_CARDS").unwrap_or_default();
        let mut lines = told.lines();
        let Some(peer) = lines.next() else {
            println!(
                "skipped: no network cards to spare here; cargo xtask test --drivers has some"
            );
            return Ok(None);
        };
        let cards = lines.map(card).collect::<Result<_>>()?;

        Ok(Some(Self {
            cards,
            peer: index(peer)?,
        }))
    }

    /// Two hosts: one with this card, and its peer.
    pub fn hosts(&self, card: &Card) -> Result<Hosts> {
        let guarded = interface(card.index)?;
        let peer = interface(self.peer)?;
        let direct = Direct::with((&guarded, &peer))
            .with_context(|| format!("{}: make its host", card.name))?;
        // QEMU's vmxnet3 goes back to the address from the factory whenever it is reset.
        if card.name == "vmxnet3" {
            direct.guarded.ip("link set vg promisc on")?;
        }

        Ok(Hosts {
            direct,
            indices: [card.index, self.peer],
        })
    }
}

fn card(line: &str) -> Result<Card> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [address, name, usual, large, long] = words[..] else {
        anyhow::bail!("PORTGUARD_CARDS: {line}");
    };

    Ok(Card {
        name: name.to_owned(),
        usual: usual.to_owned(),
        large: large.to_owned(),
        long: long == "long",
        index: index(address)?,
    })
}

/// The index of the card that has this address from the factory.
fn index(address: &str) -> Result<u32> {
    for entry in fs::read_dir("/sys/class/net")? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if factory(&name)? == Some(address.to_owned()) {
            return Ok(fs::read_to_string(folder.join("ifindex"))?.trim().parse()?);
        }
    }
    anyhow::bail!("{address}: no such card")
}

/// The address that `ip` shows as permanent, or else as the present one.
fn factory(name: &str) -> Result<Option<String>> {
    let shown = ip(&["-details", "link", "show", "dev", name])?;
    let mut words = shown.split_whitespace();
    let word = |words: &mut std::str::SplitWhitespace<'_>, before: &str| {
        words.find(|word| *word == before)?;
        words.next().map(str::to_owned)
    };
    let permanent = word(&mut words.clone(), "permaddr");

    Ok(permanent.or_else(|| word(&mut words, "link/ether")))
}

fn interface(index: u32) -> Result<String> {
    let since = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/class/net")?.flatten() {
            let found = fs::read_to_string(entry.path().join("ifindex")).unwrap_or_default();
            if found.trim().parse() == Ok(index) {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        ensure!(since.elapsed() < PATIENCE, "card {index} is not here");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Two hosts with a card each, which go back where they were with the value.
#[derive(Debug)]
pub struct Hosts {
    /// The hosts.
    pub direct: Direct,
    indices: [u32; 2],
}

impl Hosts {
    /// Sets the MTU of both cards.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        let (guarded, peer) = (&self.direct.guarded, &self.direct.peer);
        peer.ip(&format!("link set vp mtu {mtu}"))?;
        guarded.ip(&format!("link set vg mtu {mtu}"))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let [guarded, peer] = self.indices;
        for (host, name, index) in [
            (&self.direct.guarded, "vg", guarded),
            (&self.direct.peer, "vp", peer),
        ] {
            let back = [
                format!("link set {name} down"),
                format!("link set {name} mtu 1500"),
                format!("link set {name} name card{index}"),
                format!("link set card{index} netns 1"),
            ];
            for command in back {
                if let Err(error) = host.ip(&command) {
                    eprintln!("{error:#}");
                }
            }
        }
    }
}

fn ip(words: &[&str]) -> Result<String> {
    let output = Command::new(Path::new("ip")).args(words).output()?;
    ensure!(output.status.success(), "ip {words:?}");
    Ok(String::from_utf8(output.stdout)?)
}
