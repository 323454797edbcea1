//! Figures as a table and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::case::{Measured, Taken};
use super::peers::{Peer, Tool};

/// What no case should need more memory than, in bytes.
const MEMORY_BUDGET: u64 = 150_000_000;

const PEERS: [Peer; 2] = [Peer::Buildkit, Peer::Buildah];

/// The machine and the tools, in a line.
pub(crate) fn machine(tools: &[Tool]) -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let versions: Vec<&str> = tools.iter().map(Tool::version).collect();
    format!("{processors} processors; {}", versions.join("; "))
}

/// One case, as soon as it is measured.
pub(crate) fn line(measured: &Measured) -> String {
    let ours = measured.median(Peer::Formwork).unwrap_or(0.0);
    let mut text = format!("  {:36} {:>9}", measured.name, seconds(ours));
    for peer in PEERS {
        if let Some(theirs) = measured.median(peer) {
            // Writing into a string cannot fail.
            let _ = write!(text, "   {} {} ({:.1}x)", peer.name(), seconds(theirs), theirs / ours);
        }
    }
    text
}

/// All cases.
pub(crate) fn table(results: &[Measured]) -> String {
    let mut text = format!(
        "{:36} {:>9} {:>9} {:>3} {:>8} {:>16} {:>18} {:>18}\n",
        "case (medians)", "formwork", "budget", "", "memory", "processors", "buildkit", "buildah"
    );
    for measured in results {
        let ours = measured.median(Peer::Formwork).unwrap_or(0.0);
        let is_within = ours <= measured.budget && measured.taken.peak_memory <= MEMORY_BUDGET;
        let mark = if is_within { "ok" } else { "—" };
        let _ = write!(
            text,
            "{:36} {:>9} {:>9} {mark:>3} {:>5} MB {:>16}",
            measured.name,
            seconds(ours),
            seconds(measured.budget),
            measured.taken.peak_memory / 1_000_000,
            processors(measured)
        );
        for peer in PEERS {
            let cell = measured
                .median(peer)
                .map_or_else(|| "-".to_owned(), |t| format!("{} ({:.1}x)", seconds(t), t / ours));
            let _ = write!(text, " {cell:>18}");
        }
        text.push('\n');
    }
    text
}

/// All figures, for programs.
pub(crate) fn json(results: &[Measured], tools: &[Tool]) -> String {
    let cases: Vec<Value> = results
        .iter()
        .map(|measured| {
            let times: serde_json::Map<String, Value> = measured
                .times
                .iter()
                .map(|(peer, times)| {
                    let seconds: Vec<f64> = times.iter().map(|t| t.as_secs_f64()).collect();
                    let median = measured.median(*peer);
                    (peer.name().to_owned(), json!({ "median": median, "seconds": seconds }))
                })
                .collect();
            json!({
                "case": measured.name,
                "budget": measured.budget,
                "peak_memory": measured.taken.peak_memory,
                "processors": { "seconds": measured.taken.processors, "wall": measured.taken.wall },
                "tools": times,
            })
        })
        .collect();
    let report = json!({ "machine": machine(tools), "cases": cases });
    format!("{}\n", serde_json::to_string_pretty(&report).unwrap_or_default())
}

/// The time of all processors, and how many of them a run kept busy.
fn processors(measured: &Measured) -> String {
    let Taken { wall, processors, .. } = measured.taken;
    // `time` counts hundredths of a second.
    match wall >= 0.1 {
        true => format!("{} ({:.1})", seconds(processors), processors / wall),
        false => seconds(processors),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        0.0..0.0995 => format!("{:.1} ms", seconds * 1e3),
        0.0995..0.9995 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}
