//! What was measured, as tables in Markdown and as plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::latency::Table;
use super::packets::{WAYS, Ways};
use super::plot::{Line, svg};
use super::repair::Repair;
use super::runs::{Sample, ms, ratio};
use super::stages;
use super::storm::Storm;

/// Begins and ends what is written anew in docs/performance.md.
const MARKS: [&str; 2] = ["<!-- measured -->\n", "<!-- end of what was measured -->\n"];

/// All of a run.
#[derive(Default)]
pub struct Report {
    /// Of each setup.
    pub tables: Vec<Table>,
    /// Of packets.
    pub ways: Vec<Ways>,
    /// Of storms.
    pub storms: Vec<Storm>,
    /// Of what is put right at once.
    pub repair: Option<Repair>,
    /// Of stages.
    pub stages: Option<[Duration; stages::NAMES.len()]>,
    /// The machine and the program.
    pub machine: String,
}

impl Report {
    /// All tables.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        for table in &self.tables {
            text += &latency(table);
        }
        if let Some(stages) = &self.stages {
            text += "\n### Stages inside the process, ip-less-routed\n\n| stage | median |\n|---|---|\n";
            for (name, time) in stages::NAMES.iter().zip(stages) {
                let _infallible = writeln!(text, "| {name} | {:.0} us |", time.as_secs_f64() * 1e6);
            }
        }
        if !self.storms.is_empty() {
            text += "\n### Boot storm: from the first spawn to the last exit\n\n\
                     | setup | NICs | snf-network | the seed's commands | best scripted |\n|---|---|---|---|---|\n";
            for Storm { setup, nics, times: [ours, seed, scripted] } in &self.storms {
                let against = |time: &Duration| format!("{:.0} ms ({:.1}x)", ms(*time), ratio(*time, *ours));
                let _infallible = writeln!(
                    text,
                    "| {} | {nics} | {:.1} ms | {} | {} |",
                    setup.name(),
                    ms(*ours),
                    against(seed),
                    against(scripted)
                );
            }
        }
        if let Some(Repair { nics, built_in, status, idle, without_filters, after_loss }) = &self.repair {
            let _infallible = write!(
                text,
                "\n### {nics} ip-less-routed NICs at once\n\n| | median | part of {nics} ifups |\n|---|---|---|\n\
                 | {nics} ifups, one after the other | {:.0} ms | 1 |\n",
                ms(*built_in)
            );
            for (name, sample) in [
                ("status", status),
                ("reconcile, nothing to do", idle),
                ("reconcile after nft flush ruleset", without_filters),
                ("reconcile, all filters, rules and routes", after_loss),
            ] {
                let median = sample.median();
                let _infallible = writeln!(text, "| {name} | {:.1} ms | {:.3} |", ms(median), ratio(median, *built_in));
            }
        }
        if !self.ways.is_empty() {
            text += "\n### The packet's way: one small UDP packet through the node\n";
        }
        for ways in &self.ways {
            text += &packets(ways);
        }
        text
    }

    /// Writes the tables into docs/performance.md, between its marks, and the plots beside it.
    ///
    /// # Errors
    /// If the file has no marks, or cannot be written.
    pub fn write(&self, docs: &Path) -> Result<()> {
        let file = docs.join("performance.md");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let (before, rest) = text.split_once(MARKS[0]).context("docs/performance.md has no mark")?;
        let (_, after) = rest.split_once(MARKS[1]).context("docs/performance.md has no end mark")?;
        fs::write(&file, format!("{before}{}\n{}\n{}{after}", MARKS[0], self.markdown().trim(), MARKS[1]))?;
        let plots = docs.join("performance");
        fs::create_dir_all(&plots)?;
        let lines = self.tables.iter().flat_map(|table| {
            let of = |pick: fn(&super::latency::Row) -> Duration| {
                table.rows.iter().map(|it| (it.nics, ms(pick(it)))).collect()
            };
            let name = table.setup.name();
            [
                Line { name: format!("{name} up"), points: of(|row| row.ours[0].median()) },
                Line { name: format!("{name} floor"), points: of(|row| row.floor[0].median()) },
            ]
        });
        fs::write(plots.join("latency.svg"), svg("ifup, spawn to exit", "ms", &lines.collect::<Vec<_>>()))?;
        for routed in [true, false] {
            let ways = self.ways.iter().filter(|it| it.setup.is_routed() == routed);
            let lines: Vec<_> = ways
                .flat_map(|it| {
                    [0, 2].map(|way| Line {
                        name: format!("{}{}, {}", it.means, it.setup.variant(), WAYS[way].0),
                        points: it.rows.iter().map(|(nics, times)| (*nics, times[way].as_secs_f64() * 1e9)).collect(),
                    })
                })
                .collect();
            if lines.is_empty() {
                continue;
            }
            let (name, title) = if routed { ("routed", "a routed packet") } else { ("filtered", "a filtered frame") };
            fs::write(plots.join(format!("packets-{name}.svg")), svg(&format!("The way of {title}"), "ns", &lines))?;
        }
        Ok(())
    }
}

fn latency(table: &Table) -> String {
    let version = table.version.median();
    let mut text = format!("\n### {}: spawn to exit\n\n", table.setup.name());
    text += "| NICs present | | median | p99 | against the floor | against changes alone | against none present | processor | system calls | netlink round trips |\n\
             |---|---|---|---|---|---|---|---|---|---|\n";
    for row in &table.rows {
        let lines = [("ifup", 0, Some(0)), ("ifup again", 1, None), ("ifdown", 2, Some(1))];
        for (name, place, floor) in lines {
            let sample = &row.ours[place];
            let first = table.rows.first().map_or(Duration::ZERO, |it| it.ours[place].median());
            let against = |floors: &[Sample; 2]| {
                floor.map_or(String::new(), |it| format!("{:.2}", ratio(sample.median(), floors[it].median())))
            };
            let recorded = floor.map(|it| &row.recorded[it]);
            let count = |count: Option<usize>| count.map_or(String::new(), |it| it.to_string());
            let _infallible = writeln!(
                text,
                "| {} | {name} | {:.2} ms | {:.2} ms | {} | {} | {:.2} | {:.2} ms | {} | {} |",
                row.nics,
                ms(sample.median()),
                ms(sample.quantile(0.99)),
                against(&row.floor),
                against(&row.changes),
                ratio(sample.median(), first),
                ms(sample.cpu()),
                count(recorded.map(|it| it.system_calls)),
                count(recorded.map(|it| it.round_trips)),
            );
        }
        let [up, down] = &row.floor;
        let [up_changes, down_changes] = &row.changes;
        for (name, sample) in [
            ("floor of ifup", up),
            ("floor of ifdown", down),
            ("changes of ifup alone", up_changes),
            ("changes of ifdown alone", down_changes),
        ] {
            let _infallible = writeln!(
                text,
                "| {} | {name} | {:.2} ms | {:.2} ms | | | | {:.2} ms | | |",
                row.nics,
                ms(sample.median()),
                ms(sample.quantile(0.99)),
                ms(sample.cpu())
            );
        }
    }
    let _infallible = writeln!(
        text,
        "| | --version | {:.2} ms | {:.2} ms | | | | | | |",
        ms(version),
        ms(table.version.quantile(0.99))
    );
    if let (Some(row), false) = (table.rows.first(), table.scripts.is_empty()) {
        text += "\n| with none present | up | against ifup | down | against ifdown |\n|---|---|---|---|---|\n";
        for (name, [up, down]) in &table.scripts {
            let _infallible = writeln!(
                text,
                "| {name} | {:.1} ms | {:.1}x | {:.1} ms | {:.1}x |",
                ms(up.median()),
                ratio(up.median(), row.ours[0].median()),
                ms(down.median()),
                ratio(down.median(), row.ours[2].median())
            );
        }
    }
    text
}

fn packets(ways: &Ways) -> String {
    let mut text = format!("\n{}, {}:\n\n| NICs present |", ways.setup.name(), ways.means);
    WAYS.iter().for_each(|way| text += &format!(" {} |", way.0));
    text += "\n|---|---|---|---|---|\n";
    let first = ways.rows.first().map(|it| it.1).unwrap_or_default();
    for (nics, times) in &ways.rows {
        text += &format!("| {nics} |");
        for (time, first) in times.iter().zip(first) {
            let rate = 1.0 / time.as_secs_f64().max(f64::MIN_POSITIVE);
            text += &format!(" {} ns ({:.2}x), {:.0}k/s |", time.as_nanos(), ratio(*time, first), rate / 1e3);
        }
        text.push('\n');
    }
    text
}
