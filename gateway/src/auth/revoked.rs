//! Which logins have ended, in memory. Pure.

use std::collections::HashMap;

use chat_shared::{
    clock::Timestamp,
    delivery::Revocation,
    ids::{LoginId, UserId},
};

use super::Identity;

/// Logins that have ended.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Users of whom all tokens are refused that were issued until then.
    users: HashMap<UserId, Timestamp>,
    /// Logins of which all tokens are refused, and since when.
    logins: HashMap<(UserId, LoginId), Timestamp>,
}

impl Revoked {
    /// Takes in one.
    pub(super) fn add(&mut self, revocation: &Revocation) {
        let Revocation { user_id, login, at } = *revocation;
        let known = match login {
            Some(login) => self.logins.entry((user_id, login)).or_insert(at),
            None => self.users.entry(user_id).or_insert(at),
        };
        *known = at.max(*known);
    }

    /// Whether it concerns the token that an identity comes from.
    pub(super) fn concerns(&self, identity: &Identity) -> bool {
        self.users.get(&identity.user_id).is_some_and(|until| identity.issued_at <= *until)
            || identity.login.is_some_and(|login| self.logins.contains_key(&(identity.user_id, login)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.users.len() + self.logins.len()
    }

    /// Forgets those from before: every token that they concern has expired.
    pub(super) fn forget_before(&mut self, moment: Timestamp) {
        self.users.retain(|_, at| *at >= moment);
        self.logins.retain(|_, at| *at >= moment);
    }

    /// Forgets the oldest, a tenth of all at once, if there are more than `max`; how many. Of their tokens most have expired.
    pub(super) fn bound(&mut self, max: usize) -> usize {
        let before = self.len();
        if before <= max {
            return 0;
        }
        let mut moments: Vec<_> = self.users.values().chain(self.logins.values()).copied().collect();
        let (_, oldest_kept, _) = moments.select_nth_unstable(before - max / 10 * 9);
        let oldest_kept = *oldest_kept;
        self.forget_before(oldest_kept);
        before - self.len()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Revocation> {
        let users = self.users.iter().map(|(&user_id, &at)| Revocation { user_id, login: None, at });
        let logins = self.logins.iter().map(|(&(user_id, login), &at)| Revocation { user_id, login: Some(login), at });
        users.chain(logins).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user_id: UserId, issued_at: i64, sid: Option<&str>) -> Identity {
        let (expires_at, issued_at) = (Timestamp(i64::MAX), Timestamp(issued_at));
        Identity { user_id, expires_at, issued_at, login: sid.map(LoginId::of) }
    }

    #[test]
    fn a_logout_everywhere_concerns_the_tokens_issued_until_then_and_no_others_r6_4() {
        let [ana, ben] = [UserId::random(), UserId::random()];
        let mut revoked = Revoked::default();
        revoked.add(&Revocation { user_id: ana, login: None, at: Timestamp(5_400) });
        revoked.add(&Revocation { user_id: ana, login: None, at: Timestamp(3_000) });
        for (issued_at, is_refused) in [(0, true), (4_000, true), (5_000, true), (6_000, false)] {
            assert_eq!(revoked.concerns(&identity(ana, issued_at, Some("phone"))), is_refused, "{issued_at}");
        }
        assert!(!revoked.concerns(&identity(ben, 0, None)));
    }

    #[test]
    fn the_end_of_a_login_concerns_its_tokens_whenever_they_were_issued_and_no_others_r6_4() {
        let [ana, ben] = [UserId::random(), UserId::random()];
        let mut revoked = Revoked::default();
        revoked.add(&Revocation { user_id: ana, login: Some(LoginId::of("phone")), at: Timestamp(5_000) });
        assert!(revoked.concerns(&identity(ana, 9_000, Some("phone"))));
        for other in [identity(ana, 0, Some("laptop")), identity(ana, 0, None), identity(ben, 0, Some("phone"))] {
            assert!(!revoked.concerns(&other));
        }
    }

    #[test]
    fn it_is_bounded_and_the_oldest_go() {
        let mut revoked = Revoked::default();
        let user_id = UserId::random();
        for at in 1..=101 {
            let login = (at % 2 == 0).then(|| LoginId::of(&at.to_string()));
            let user_id = if login.is_some() { user_id } else { UserId::random() };
            revoked.add(&Revocation { user_id, login, at: Timestamp(at) });
            let dropped = revoked.bound(100);
            assert_eq!(dropped, if at == 101 { 11 } else { 0 });
        }
        assert_eq!(revoked.all().iter().map(|revocation| revocation.at.0).min(), Some(12));
        revoked.forget_before(Timestamp(100));
        assert_eq!(revoked.len(), 2);
    }
}
