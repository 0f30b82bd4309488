//! Pages of a description. A token says what the next page comes behind, so that pages stay right while
//! objects come and go.

use sha2::{Digest as _, Sha256};

use super::fault::{Fault, Result};
use super::query::Params;

/// What a request asks for of a list.
#[derive(Debug)]
pub(super) struct Paging {
    most: Option<usize>,
    behind: Option<String>,
    seal: [u8; 8],
}

/// One page, and how the next one is asked for.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<String>,
}

impl Paging {
    /// Takes the size of a page, which must be within bounds, and the token. `question` is what a token
    /// is good for: an operation and its filters.
    pub(super) fn take(
        params: &mut Params,
        (least, most): (usize, usize),
        question: &str,
    ) -> Result<Self> {
        let asked = params.number("MaxResults")?;
        let refuse = |asked: i64| {
            Fault::value(format!(
                "Value ( {asked} ) for parameter maxResults is invalid. Expecting a value between \
                 {least} and {most}."
            ))
        };
        let size = match asked {
            None => None,
            Some(asked) => match usize::try_from(asked) {
                Ok(size) if (least..=most).contains(&size) => Some(size),
                _ => return Err(refuse(asked)),
            },
        };
        let hash = Sha256::digest(question);
        let mut seal = [0; 8];
        seal.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        let behind = params.text("NextToken")?;
        let behind = behind.map(|token| open(&token, seal)).transpose()?;
        Ok(Self {
            most: size,
            behind,
            seal,
        })
    }

    /// Whether a page is asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.most.is_some()
    }

    /// The key that the page comes behind.
    pub(super) fn behind(&self) -> Option<&str> {
        self.behind.as_deref()
    }

    /// The page of items that come in the order of their keys.
    pub(super) fn page<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> Page<T> {
        let mut items = items
            .into_iter()
            .skip_while(|item| self.behind().is_some_and(|behind| *key(item) <= *behind))
            .fuse();
        let Some(most) = self.most else {
            return Page {
                items: items.collect(),
                next: None,
            };
        };
        let page: Vec<T> = items.by_ref().take(most).collect();
        let next = match (page.last(), items.next()) {
            (Some(last), Some(_)) => Some(self.token(&key(last))),
            _ => None,
        };
        Page { items: page, next }
    }

    fn token(&self, key: &str) -> String {
        let bytes = self.seal.iter().copied().chain(key.bytes());
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }
}

fn open(token: &str, seal: [u8; 8]) -> Result<String> {
    let refuse = || {
        let message = "The token is invalid or belongs to another request; start again without one";
        Fault::new("InvalidNextToken", message)
    };
    let digits = token.as_bytes();
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(pair, 16)
                .ok()
                .filter(|_| pair.len() == 2)
        })
        .collect();
    let bytes = bytes.filter(|_| token.len() <= 1024).ok_or_else(refuse)?;
    let key = bytes.strip_prefix(&seal).ok_or_else(refuse)?;
    String::from_utf8(key.to_vec()).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(form: &str) -> Result<Paging> {
        let mut params = Params::parse(form.as_bytes()).unwrap();
        Paging::take(&mut params, (2, 4), "question")
    }

    #[test]
    fn pages_follow_each_other_while_items_go() {
        let all = ["a", "b", "c", "d", "e"];
        let key = |item: &&str| (*item).to_owned();
        let first = paging("MaxResults=2").unwrap().page(all, key);
        assert_eq!(first.items, ["a", "b"]);
        let token = first.next.unwrap();
        let second = paging(&format!("MaxResults=2&NextToken={token}")).unwrap();
        assert_eq!(second.page(["a", "c", "d", "e"], key).items, ["c", "d"]);
        let last = paging(&format!("MaxResults=4&NextToken={token}")).unwrap();
        let last = last.page(all, key);
        assert_eq!((last.items.len(), last.next), (3, None));
        assert_eq!(paging("").unwrap().page(all, key).items.len(), 5);
    }

    #[test]
    fn a_size_out_of_bounds_and_a_foreign_token_are_refused() {
        for form in ["MaxResults=1", "MaxResults=5", "MaxResults=-1"] {
            assert_eq!(paging(form).unwrap_err().code, "InvalidParameterValue");
        }
        let mut params = Params::parse(b"MaxResults=2").unwrap();
        let other = Paging::take(&mut params, (2, 4), "another").unwrap();
        for token in [&other.token("a"), "zz", "0", "00", "\u{e9}\u{e9}"] {
            let form = format!("NextToken={token}");
            assert_eq!(paging(&form).unwrap_err().code, "InvalidNextToken");
        }
    }
}
