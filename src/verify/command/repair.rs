//! Repairs damaged rows: recreates all that custody can prove, after a confirmation.

use crate::command::{Exit, Failure, output, rules};
use crate::config::Config;
use crate::postgres::connections::Connections;
use crate::verify::command::whole::VerifyResult;
use crate::verify::snapshot as audit;
use crate::verify::snapshot::RepairContext;
use serde_json::Value;
use std::io::{BufRead as _, IsTerminal as _};

pub(crate) async fn repair(
    config: &Config,
    connections: &Connections,
    verified: &VerifyResult,
    yes: bool,
    as_json: bool,
) -> Result<Vec<Value>, Failure> {
    let report = &verified.report;
    if report.findings.of_custody() > 0 {
        if !as_json {
            report.lines().iter().for_each(output::line);
        }
        let says =
            "custody itself is damaged, and what is made anew from it would be worth nothing: nothing was repaired";
        return Err(Failure::new(Exit::Difference, says));
    }
    let (rows, days) = (verified.damaged.len(), verified.damaged_days.len());
    if !yes && !ask(&format!("Make {rows} rows and {days} days anew from custody? [y/N] "))? {
        return Err(Failure::new(Exit::Difference, "nothing was repaired"));
    }
    let agents = rules::load(config).map_err(|why| Failure::new(Exit::Configuration, why))?.agents;
    let context = RepairContext {
        rules: &rules::shipped(),
        epochs: &verified.background.epochs,
        tier_of: &|model| config.judging.model_tiers.tier_of(model).map(str::to_owned),
        group_of: &|agent| agents.group(agent).map(str::to_uppercase),
    };
    let mut repaired = Vec::new();
    let failures = audit::repair(connections, &context, &verified.damaged, &verified.damaged_days, |row| {
        if !as_json {
            output::line(row.line());
        }
        repaired.push(row.to_json());
    })
    .await?;
    for failure in failures {
        output::complain(&format!("not repaired: {failure}"));
    }
    Ok(repaired)
}

/// Asks on a terminal. Where there is none, nobody has said yes.
fn ask(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "nobody is there to ask: say --yes"));
    }
    output::prompt(question);
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
