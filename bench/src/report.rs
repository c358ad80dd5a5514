//! What was measured, as a whole: decided by targets, compared with what was recorded, written
//! down as JSON and as tables, and drawn.

mod assessment;
mod documents;
mod machine;
mod plot;
mod recorded;
mod table;
mod targets;

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

pub use self::{
    assessment::{Assessment, Extent},
    documents::refresh as refresh_documents,
    recorded::{Recorded, cost_name},
    targets::{Mark, has_target, marks},
};
use crate::{
    clients::Clients, floods::Reading, footprint::Footprint, report::machine::Machine,
    scaling::Scaling, test_run::Cost,
};

/// Changes with the meaning of any field.
const SCHEMA_VERSION: u32 = 1;

/// What one run has measured. Parts that were not are empty.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    schema_version: u32,
    machine: Machine,
    /// What each outcome costs.
    pub test_run: Vec<Cost>,
    /// What floods do.
    pub floods: Vec<Reading>,
    /// What floods do where the policy has something to be asked.
    pub policies: Vec<Reading>,
    /// What connections notice.
    pub clients: Option<Clients>,
    /// What many flows cost.
    pub scaling: Option<Scaling>,
    /// Memory, and how long changes take.
    pub footprint: Option<Footprint>,
    /// Peers that could not be measured, and why.
    pub left_out: Vec<String>,
    /// Which targets were met.
    pub targets: Vec<Mark>,
}

impl Results {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            machine: Machine::this(),
            test_run: Vec::new(),
            floods: Vec::new(),
            policies: Vec::new(),
            clients: None,
            scaling: None,
            footprint: None,
            left_out: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Writes the results into the folder that `cargo xtask bench` names, and returns which.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self) -> Result<PathBuf> {
        let folder = env::var_os("PORTGUARD_BENCH_RESULTS")
            .map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
        let json = serde_json::to_string_pretty(self)?;
        for (name, text) in [
            ("results.json", json),
            ("results.md", table::markdown(self)),
            ("results.svg", plot::draw(self)),
        ] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(folder)
    }
}
