//! Maps the name of a model to its tier: a list of patterns, of which the first match decides.

/// `token_rate_{tier}_input` must fit where metric keys are shown.
pub(crate) const TIER_CHARS_MAX: usize = 50;

/// The patterns that the program has. A model of a maker's first rank is PREMIUM, one of the second STANDARD, and small ones and
/// open weights are ECONOMY. What runs on one's own machine costs no tokens.
const BUILT_IN: [(&str, &str); 60] = [
    ("local*", "FREE"),
    ("ollama*", "FREE"),
    // Anthropic
    ("*opus*", "PREMIUM"),
    ("*sonnet*", "STANDARD"),
    ("*haiku*", "ECONOMY"),
    ("*claude-instant*", "ECONOMY"),
    ("*claude*", "STANDARD"),
    // Embeddings, whoever makes them
    ("*embed*", "ECONOMY"),
    // OpenAI
    ("*gpt-4.1-nano*", "ECONOMY"),
    ("*gpt-4.1-mini*", "STANDARD"),
    ("*gpt-4o-mini*", "STANDARD"),
    ("*gpt-5*-nano*", "ECONOMY"),
    ("*gpt-5*-mini*", "STANDARD"),
    ("*gpt-3.5*", "ECONOMY"),
    ("*gpt-oss*", "ECONOMY"),
    ("*gpt-4*", "PREMIUM"),
    ("*chatgpt-4o*", "PREMIUM"),
    ("*gpt-5*", "PREMIUM"),
    ("o1-mini*", "STANDARD"),
    ("o3-mini*", "STANDARD"),
    ("o4-mini*", "STANDARD"),
    ("*/o1-mini*", "STANDARD"),
    ("*/o3-mini*", "STANDARD"),
    ("*/o4-mini*", "STANDARD"),
    ("o1*", "PREMIUM"),
    ("o3*", "PREMIUM"),
    ("o4*", "PREMIUM"),
    ("*/o1*", "PREMIUM"),
    ("*/o3*", "PREMIUM"),
    ("*/o4*", "PREMIUM"),
    // Google
    ("*gemini*flash-lite*", "ECONOMY"),
    ("*gemini*flash*", "STANDARD"),
    ("*gemini*nano*", "ECONOMY"),
    ("*gemini*", "PREMIUM"),
    ("*gemma*", "ECONOMY"),
    // xAI
    ("*grok*mini*", "ECONOMY"),
    ("*grok*fast*", "ECONOMY"),
    ("*grok*", "STANDARD"),
    // Mistral
    ("*mistral-large*", "STANDARD"),
    ("*mistral-medium*", "STANDARD"),
    ("*magistral*", "STANDARD"),
    ("*mistral*", "ECONOMY"),
    ("*mixtral*", "ECONOMY"),
    ("*ministral*", "ECONOMY"),
    ("*codestral*", "ECONOMY"),
    ("*devstral*", "ECONOMY"),
    ("*pixtral*", "ECONOMY"),
    // Open weights, and makers whose prices are like theirs
    ("*llama*", "ECONOMY"),
    ("*deepseek*", "ECONOMY"),
    ("*qwen*max*", "STANDARD"),
    ("*qwen*", "ECONOMY"),
    ("*qwq*", "ECONOMY"),
    ("phi-*", "ECONOMY"),
    ("*/phi-*", "ECONOMY"),
    ("*kimi*", "ECONOMY"),
    ("*glm-*", "ECONOMY"),
    ("*minimax*", "ECONOMY"),
    ("*command-a*", "STANDARD"),
    ("*command-r-plus*", "STANDARD"),
    ("*command-r*", "ECONOMY"),
];

/// Patterns of model names, each with its tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelTiers {
    /// Those of the configuration, which go before those of the program.
    added: Vec<(String, String)>,
    /// What a model that fits none of them is charged at; none where it is rejected.
    unknown: Option<String>,
}

impl ModelTiers {
    /// Reads entries such as `*sonnet*=STANDARD`. `*` stands for any text; case, spaces and underscores make no difference.
    ///
    /// # Errors
    /// A sentence that names the entry.
    pub fn parse(entries: &[String], unknown: Option<String>) -> Result<Self, String> {
        let added = entries.iter().map(|entry| {
            let (pattern, tier) = entry.split_once('=').unwrap_or((entry, ""));
            let (pattern, tier) = (normal(pattern.trim()), tier.trim());
            if pattern.is_empty() || !is_tier(tier) {
                return Err(format!("\"{entry}\" is not of the form pattern=TIER, such as *sonnet*=STANDARD"));
            }
            Ok((pattern, tier.to_owned()))
        });
        Ok(Self { added: added.collect::<Result<_, _>>()?, unknown })
    }

    /// The tier of a model.
    pub fn tier_of(&self, model: &str) -> Option<&str> {
        let model = normal(model);
        let added = self.added.iter().map(|(pattern, tier)| (pattern.as_str(), tier.as_str()));
        let fitting = added.chain(BUILT_IN).find(|(pattern, _)| fits(pattern, &model));
        fitting.map(|(_, tier)| tier).or(self.unknown.as_deref())
    }
}

/// A tier's name: capitals, digits and underscores, beginning with a letter.
pub fn is_tier(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= TIER_CHARS_MAX
        && text.bytes().next().is_some_and(|first| first.is_ascii_uppercase())
        && text.bytes().all(allowed)
}

fn normal(text: &str) -> String {
    text.to_lowercase().replace([' ', '_'], "-")
}

/// Whether the pattern's pieces stand in the text in their order, the first at its beginning and the last at its end.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(entries: &[&str], unknown: Option<&str>) -> ModelTiers {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        ModelTiers::parse(&entries, unknown.map(str::to_owned)).expect("good entries")
    }

    #[test]
    fn what_people_call_today_has_a_tier() {
        for (tier, models) in [
            (
                "PREMIUM",
                "gpt-4o|GPT-4o-2024-08-06|gpt-4.1|gpt-4-turbo|gpt-5|gpt-5.1|gpt-5-codex|o1|o3|o3-pro|openai/o3|gemini-2.5-pro|Claude Opus|claude-opus-4-1",
            ),
            (
                "STANDARD",
                "gpt-4o-mini|gpt-4o-mini-2024-07-18|gpt-4.1-mini|gpt-5-mini|o1-mini|o3-mini|o4-mini|gemini-2.5-flash|claude-sonnet-4|Claude Sonnet|claude-3-5-sonnet-20241022|anthropic.claude-v2|mistral-large-latest|grok-4",
            ),
            (
                "ECONOMY",
                "gpt-4.1-nano|gpt-5-nano|gpt-3.5-turbo|claude-haiku-4-5|gemini-2.5-flash-lite|llama3.1:8b|meta-llama/Llama-3.3-70B-Instruct|mistral-small-latest|open-mixtral-8x7b|deepseek-chat|deepseek-reasoner|qwen2.5-coder|text-embedding-3-small|nomic-embed-text",
            ),
            ("FREE", "local|local:llama3|ollama/llama3.1"),
        ] {
            for model in models.split('|') {
                assert_eq!(ModelTiers::default().tier_of(model), Some(tier), "{model}");
            }
        }
        for model in ["a-new-model", "photo3", "model-o3x", ""] {
            assert_eq!(ModelTiers::default().tier_of(model), None, "{model}");
        }
    }

    #[test]
    fn the_configurations_patterns_go_before_the_programs_and_take_none_of_them_away() {
        let tiers = tiers(&["llama*=FREE", "house_*=ECONOMY", "a*b*c=ECONOMY"], None);
        for (model, tier) in [
            ("llama3.1:8b", Some("FREE")),
            ("House model", Some("ECONOMY")),
            ("axxbyyc", Some("ECONOMY")),
            ("claude-sonnet-4", Some("STANDARD")),
            ("ac", None),
        ] {
            assert_eq!(tiers.tier_of(model), tier, "{model}");
        }
    }

    #[test]
    fn an_unknown_model_is_charged_at_the_tier_that_was_set_for_it() {
        let tiers = tiers(&[], Some("PREMIUM"));
        assert_eq!((tiers.tier_of("a-new-model"), tiers.tier_of("gpt-4o-mini")), (Some("PREMIUM"), Some("STANDARD")));
    }

    #[test]
    fn an_entry_without_a_tier_is_refused() {
        for entry in ["sonnet", "sonnet=", "=STANDARD", "sonnet=standard"] {
            assert!(ModelTiers::parse(&[entry.to_owned()], None).is_err(), "{entry}");
        }
    }
}
