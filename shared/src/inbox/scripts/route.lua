-- Appends an event to a user's inbox and says which gateways hold their sessions.
-- KEYS: meta, entries, sessions, delivered; for a change with an LSN also: lsn
-- ARGV: run, event, entries_max, bytes_max; for a delivery also: conversation, number; for a change with an LSN also: that,
-- and for how long it counts
-- Returns: nothing if the user has no inbox, or knows of a later delivery; else epoch, cursor, whether devices are known
-- to be registered for notifications ('1', '0', or '' for unknown), then "gateway device head" of each session.
if KEYS[5] then
    -- Also for a user without an inbox, who lists conversations all the same. All LSNs are of one length, so they compare as
    -- texts; a value of another type is replaced.
    local lsn, before = ARGV[5], redis.pcall('GET', KEYS[5])
    if type(before) == 'string' and before > lsn then
        lsn = before
    end
    redis.call('PSETEX', KEYS[5], ARGV[6], lsn)
end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'run', 'devices')
local epoch = meta[1]
if not epoch then
    return {}
end
if meta[2] and meta[2] ~= ARGV[1] then
    -- It would lack this event if its run came back.
    redis.call('HDEL', KEYS[1], 'epoch', 'devices')
    return {}
end
-- Only the user keeps an inbox alive, so what is made here goes when the rest goes.
local function end_with_inbox(key)
    local left = redis.call('PTTL', KEYS[1])
    if left > 0 then
        redis.call('PEXPIRE', key, left)
    end
end
if ARGV[5] and not KEYS[5] then
    local before = redis.call('HGET', KEYS[4], ARGV[5])
    if before and tonumber(before) >= tonumber(ARGV[6]) then
        return {}
    end
    redis.call('HSET', KEYS[4], ARGV[5], ARGV[6])
    if not before and redis.call('HLEN', KEYS[4]) == 1 then
        end_with_inbox(KEYS[4])
    end
end
local cursor = redis.call('HINCRBY', KEYS[1], 'head', 1)
-- An entry's id is its cursor and the bytes that the inbox has ever taken up to it. So the bytes after an entry are a
-- difference, whatever else trims the entries.
local bytes = redis.call('HINCRBY', KEYS[1], 'bytes', string.len(ARGV[2]))
local oldest = math.max(cursor - tonumber(ARGV[3]) + 1, 0)
local first, is_over
repeat
    first = redis.call('XRANGE', KEYS[2], oldest .. '-0', '+', 'COUNT', 1)[1]
    is_over = first and bytes - tonumber(string.match(first[1], '%d+$')) > tonumber(ARGV[4])
    if is_over then
        oldest = tonumber(string.match(first[1], '^%d+')) + 1
    end
until not is_over
local id = cursor .. '-' .. string.format('%.0f', bytes)
redis.call('XADD', KEYS[2], 'MINID', oldest .. '-0', id, 'event', ARGV[2])
if redis.call('PTTL', KEYS[2]) < 0 then
    end_with_inbox(KEYS[2])
end
local answer = redis.call('HVALS', KEYS[3])
table.insert(answer, 1, meta[3] or '')
table.insert(answer, 1, tostring(cursor))
table.insert(answer, 1, epoch)
return answer
