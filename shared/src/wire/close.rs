//! Why a gateway ends a connection. 4000–4499: come back. 4500–4999: don't, until something changes.

/// A close code; the whole list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The gateway stops; `going_away` came before.
    GoingAway,
    /// The client reads too slowly; resume.
    SlowConsumer,
    /// Nothing was heard for two heartbeats.
    HeartbeatMissed,
    /// The inbox was lost or came back; resume.
    InboxLost,
    /// The frame can't be read as what the subprotocol says.
    MalformedFrame,
    /// The frame is larger than the limit.
    FrameTooLarge,
    /// The message came in fragments.
    Fragmented,
    /// The first frame wasn't `hello`, or didn't come in time.
    HelloMissed,
    /// The token expired. Come back with a new one.
    TokenExpired,
    /// The same device connected again; this connection is the older one.
    Replaced,
    /// The user was logged out. Come back only after a new login.
    LoggedOut,
    /// The client sends more frames than anybody needs; slow down.
    TooManyFrames,
}

impl CloseCode {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::GoingAway,
        Self::SlowConsumer,
        Self::HeartbeatMissed,
        Self::InboxLost,
        Self::MalformedFrame,
        Self::FrameTooLarge,
        Self::Fragmented,
        Self::HelloMissed,
        Self::TokenExpired,
        Self::Replaced,
        Self::LoggedOut,
        Self::TooManyFrames,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::GoingAway => 4000,
            Self::SlowConsumer => 4001,
            Self::HeartbeatMissed => 4002,
            Self::InboxLost => 4003,
            Self::MalformedFrame => 4500,
            Self::FrameTooLarge => 4501,
            Self::Fragmented => 4502,
            Self::HelloMissed => 4503,
            Self::TokenExpired => 4504,
            Self::Replaced => 4505,
            Self::LoggedOut => 4506,
            Self::TooManyFrames => 4004,
        }
    }

    /// The reason text that goes with it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::GoingAway => "going_away",
            Self::SlowConsumer => "slow_consumer",
            Self::HeartbeatMissed => "heartbeat_missed",
            Self::InboxLost => "inbox_lost",
            Self::MalformedFrame => "malformed_frame",
            Self::FrameTooLarge => "frame_too_large",
            Self::Fragmented => "fragmented",
            Self::HelloMissed => "hello_missed",
            Self::TokenExpired => "token_expired",
            Self::Replaced => "replaced",
            Self::LoggedOut => "logged_out",
            Self::TooManyFrames => "too_many_frames",
        }
    }

    /// Whether a client should connect again after a close with this number.
    pub const fn is_come_back(code: u16) -> bool {
        !matches!(code, 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_say_whether_to_come_back() {
        let mut codes = CloseCode::ALL.map(CloseCode::code).to_vec();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CloseCode::ALL.len());
        assert!(CloseCode::is_come_back(CloseCode::SlowConsumer.code()));
        assert!(!CloseCode::is_come_back(CloseCode::Replaced.code()));
        assert!(CloseCode::is_come_back(1006));
    }
}
