//! What each outcome costs over a program that does nothing, by test-run.
//!
//! The programs are attached nowhere: the bench configures them, and lets the kernel run them on
//! single frames many times. Flows are made by showing frames to egress.

mod received;
mod row;
mod scene;
mod sent;

use std::fmt;

use anyhow::Result;
use guard_tests::netns::Direct;
use serde::Serialize;

use crate::{processor, rounds::Difference, shape::Shape};
use row::Row;
use scene::Scene;

/// What one outcome costs in one shape of frame.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What was decided, and how.
    pub name: &'static str,
    /// The shape of the frame.
    pub shape: Shape,
    /// The program that does nothing.
    pub over: &'static str,
    /// What the guard costs on top of it.
    #[serde(flatten)]
    pub cost: Difference,
}

/// What stands above the lines of costs.
pub const HEADING: &str = "\
ns a frame over a program that does nothing          low   median   spread     bare
";

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            low,
            median,
            spread,
            bare,
        } = self.cost;
        let shape = self.shape.to_string();
        write!(
            f,
            "{:40} {shape:6} {low:8.1} {median:8.1} {spread:8.1} {bare:8.1}",
            self.name
        )
    }
}

/// Measures every outcome that is `wanted`, by its name and the shape of its frame.
///
/// # Errors
/// When a frame is decided otherwise than its row says, or the kernel refuses anything.
pub fn measure(
    wanted: impl Fn(&str, Shape) -> bool + Sync,
    rounds: usize,
    mut seen: impl FnMut(&Cost) + Send,
) -> Result<Vec<Cost>> {
    let hosts = Direct::new()?;
    hosts
        .guarded
        .run(|| inside(&hosts, &wanted, rounds, &mut seen))
}

fn inside(
    hosts: &Direct,
    wanted: &dyn Fn(&str, Shape) -> bool,
    rounds: usize,
    seen: &mut dyn FnMut(&Cost),
) -> Result<Vec<Cost>> {
    processor::pin(processor::measured())?;
    let rows: Vec<Row> = received::rows().into_iter().chain(sent::rows()).collect();
    let mut scene = Scene::new(hosts)?;
    let mut costs = Vec::new();
    for row in &rows {
        for shape in row.shapes().filter(|shape| wanted(row.name(), *shape)) {
            let cost = Cost {
                name: row.name(),
                shape,
                over: row.bare(),
                cost: scene.compare(row, shape, rounds)?,
            };
            seen(&cost);
            costs.push(cost);
        }
    }
    Ok(costs)
}
