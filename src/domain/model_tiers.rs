//! Which tier is a model of? A list of patterns; the first that fits decides.

/// `token_rate_{tier}_input` must fit where metric keys are shown.
pub(crate) const TIER_CHARS_MAX: usize = 50;

/// Patterns of model names, each with its tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelTiers(Vec<(String, String)>);

impl ModelTiers {
    /// Reads entries such as `*sonnet*=STANDARD`. `*` stands for any text; case, spaces and underscores make no difference.
    ///
    /// # Errors
    /// A sentence that names the entry.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        entries
            .iter()
            .map(|entry| {
                let (pattern, tier) = entry.split_once('=').unwrap_or((entry, ""));
                let (pattern, tier) = (normal(pattern.trim()), tier.trim());
                if pattern.is_empty() || !is_tier(tier) {
                    return Err(format!("\"{entry}\" is not of the form pattern=TIER, such as *sonnet*=STANDARD"));
                }
                Ok((pattern, tier.to_owned()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The tier of a model.
    pub fn tier_of(&self, model: &str) -> Option<&str> {
        let model = normal(model);
        self.0.iter().find(|(pattern, _)| fits(pattern, &model)).map(|(_, tier)| tier.as_str())
    }
}

/// A tier's name: capitals, digits and underscores, beginning with a letter.
pub(crate) fn is_tier(text: &str) -> bool {
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

    #[test]
    fn the_first_pattern_that_fits_decides() {
        let entries =
            ["*gpt-4o-mini*=STANDARD", "*gpt-4o*=PREMIUM", "*sonnet*=STANDARD", "local*=FREE", "a*b*c=ECONOMY"];
        let tiers = ModelTiers::parse(&entries.map(str::to_owned)).expect("good entries");
        for (model, tier) in [
            ("gpt-4o-mini-2024-07-18", Some("STANDARD")),
            ("GPT-4o", Some("PREMIUM")),
            ("Claude Sonnet", Some("STANDARD")),
            ("claude-3-5-sonnet-20241022", Some("STANDARD")),
            ("local:llama3", Some("FREE")),
            ("my-local", None),
            ("axxbyyc", Some("ECONOMY")),
            ("ac", None),
            ("", None),
        ] {
            assert_eq!(tiers.tier_of(model), tier, "{model}");
        }
    }

    #[test]
    fn an_entry_without_a_tier_is_refused() {
        for entry in ["sonnet", "sonnet=", "=STANDARD", "sonnet=standard"] {
            assert!(ModelTiers::parse(&[entry.to_owned()]).is_err(), "{entry}");
        }
    }
}
