//! The lanes on which an actor may publish: LDG-002, "Event ID Format", and the lists of writers.

use crate::record::lane::Lane;
use crate::record::rules::{RuleSettings, Rules};

/// Any agent may have a security event, a tool request, a system event or an error, and uses tokens and tools.
const EVERYBODYS: [Lane; 6] = [Lane::Sec, Lane::Tool, Lane::Sys, Lane::Err, Lane::Tokens, Lane::Usage];

const COUNCIL: &str = "council";

/// The lane of the house that an actor's name begins with.
pub fn house_lane(actor: &str) -> Option<Lane> {
    match actor.split(['-', '_']).next() {
        Some("RXY") => Some(Lane::Vote),
        Some("SRN") => Some(Lane::Prop),
        Some("BRM") => Some(Lane::Exec),
        Some("VRA") => Some(Lane::Clr),
        Some("AST") => Some(Lane::Corp),
        Some("N8N") => Some(Lane::N8n),
        _ => None,
    }
}

/// An actor's own lanes, in the order of the specification.
pub fn own_lanes(actor: &str, rules: &Rules) -> Vec<Lane> {
    let Rules { agents, registry, settings: RuleSettings { writers, .. } } = rules;
    let house = house_lane(actor);
    let is_own = |lane: Lane| match lane {
        lane if EVERYBODYS.contains(&lane) || house == Some(lane) => true,
        // The members of the council cast votes.
        Lane::Vote => agents.group(actor) == Some(COUNCIL),
        // Roxy routes tasks, and Workflow 06 does.
        Lane::Route => matches!(house, Some(Lane::Vote | Lane::N8n)),
        Lane::Trail => writers.may_record_trails(actor),
        Lane::Metric => writers.may_set_metrics(actor),
        Lane::Added(_) => registry.may_publish(lane, actor, agents),
        _ => false,
    };
    Lane::all().into_iter().filter(|lane| is_own(*lane)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::agents::Agents;
    use crate::record::registry::Registry;
    use crate::record::writers::Writers;

    #[test]
    fn each_has_the_lane_of_its_house_and_those_of_everybody() {
        let file = "registered_agents:
  council: [{sim_id: BRM-CTO, status: active}]
  subagents: [{sim_id: BRM-WFB-01, status: active, parent: BRM-CTO}]
  workers: [{sim_id: WRK-001, status: active}]";
        let agents = Agents::parse(file, &["N8N_SANITIZER".to_owned()]).expect("the file is good");
        let writers = Writers { trails: vec!["BRM-CTO".to_owned()], ..Writers::default() };
        let settings = RuleSettings { writers, ..RuleSettings::default() };
        let rules = Rules { agents, registry: Registry::default(), settings };
        let lanes = |actor| {
            let lanes = own_lanes(actor, &rules);
            lanes.iter().map(|lane| lane.prefix()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(lanes("BRM-CTO"), "EXEC VOTE SEC TOOL SYS ERR TOKENS TRAIL USAGE");
        assert_eq!(lanes("BRM-WFB-01"), "EXEC SEC TOOL SYS ERR TOKENS USAGE");
        assert_eq!(lanes("WRK-001"), "SEC TOOL SYS ERR TOKENS USAGE");
        assert_eq!(lanes("N8N_SANITIZER"), "SEC TOOL SYS ROUTE N8N ERR TOKENS USAGE");
    }
}
