//! The results as a picture.

use std::fmt::Write;

use super::Results;
use crate::{bpf::Mode, contender::Contender, rig::Attack, shape::Shape};

const WIDTH: f64 = 760.0;
/// Where bars begin, right of their names.
const LEFT: f64 = 230.0;
/// Room for the value behind the longest bar.
const RIGHT: f64 = 90.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const TITLE: f64 = 34.0;

/// One set of bars.
struct Chart {
    title: &'static str,
    bars: Vec<(Contender, f64)>,
    /// Decimal places of the values.
    places: usize,
}

/// Draws what was measured.
pub fn draw(results: &Results) -> String {
    let charts: Vec<Chart> = charts(results)
        .into_iter()
        .filter(|chart| !chart.bars.is_empty())
        .collect();
    let height: f64 = charts.iter().map(Chart::height).sum::<f64>() + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 0.0;
    for chart in &charts {
        chart.draw(top, &mut svg);
        top += chart.height();
    }
    svg + "</svg>\n"
}

fn charts(results: &Results) -> [Chart; 4] {
    let flood = |attack| {
        let readings = results.floods.iter().filter(move |reading| {
            let flooded = &reading.flooded;
            reading.mode == Mode::Native && flooded.shape == Shape::Ipv4 && flooded.attack == attack
        });
        readings
            .map(|reading| (reading.flooded.contender, reading.flooded.rate() / 1e6))
            .collect()
    };
    let clients = results.clients.iter();
    let connects = clients.clone().flat_map(|clients| &clients.connects);
    let shared = clients.flat_map(|clients| &clients.shared);
    // What passes everything is no defence against a flood.
    let shared = shared.filter(|line| line.contender != Contender::BarePass);
    [
        Chart {
            title: "Spray at random ports, 10,000 live flows: million frames a second",
            bars: flood(Attack::Spray),
            places: 2,
        },
        Chart {
            title: "UDP at the ports of 10,000 live flows: million frames a second",
            bars: flood(Attack::UsedUdp),
            places: 2,
        },
        Chart {
            title: "Connect, ask, close: thousand a second",
            bars: connects
                .map(|line| (line.contender, 1e6 / line.cost.low))
                .collect(),
            places: 1,
        },
        Chart {
            title: "Client beside a flood: part of its rate that is left",
            bars: shared
                .map(|line| (line.contender, line.kept.value()))
                .collect(),
            places: 2,
        },
    ]
}

impl Chart {
    fn height(&self) -> f64 {
        TITLE + STEP * self.bars.len() as f64
    }

    fn draw(&self, top: f64, svg: &mut String) {
        let most = self
            .bars
            .iter()
            .map(|(_, value)| *value)
            .fold(0.0, f64::max);
        let scale = (WIDTH - LEFT - RIGHT) / most;
        let mut line = |text: String| {
            // Writing into a string cannot fail.
            let _ = writeln!(svg, "{text}");
        };
        line(format!(
            "<text x=\"10\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
            top + 22.0,
            self.title
        ));
        for (index, (contender, value)) in self.bars.iter().enumerate() {
            let y = top + TITLE + STEP * index as f64;
            let (length, text) = (value * scale, y + 12.5);
            line(format!(
                "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{contender}</text>",
                LEFT - 8.0
            ));
            line(format!(
                "<rect x=\"{LEFT:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR:.1}\" \
                 fill=\"{}\"/>",
                colour(*contender)
            ));
            line(format!(
                "<text x=\"{:.1}\" y=\"{text:.1}\">{value:.*}</text>",
                LEFT + length + 6.0,
                self.places
            ));
        }
    }
}

fn colour(contender: Contender) -> &'static str {
    if contender.is_peer() {
        "#8aa0b4"
    } else if contender.is_portguard() {
        "#1f6f43"
    } else {
        "#c9c9c9"
    }
}
