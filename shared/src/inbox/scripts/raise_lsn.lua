-- Raises a minimum LSN, unless it is higher already.
-- KEYS: lsn
-- ARGV: the LSN, for how long it counts
local lsn, before = ARGV[1], redis.pcall('GET', KEYS[1])
-- All are of one length, so they compare as texts; a value of another type is replaced.
if type(before) == 'string' and before > lsn then
    lsn = before
end
redis.call('SET', KEYS[1], lsn, 'PX', ARGV[2])
