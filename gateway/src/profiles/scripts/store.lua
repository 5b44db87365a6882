-- Keeps what kaha-main-v3 said of an id, unless the profile has changed since it was asked. An unknown id gets no key:
-- made-up ids must not fill Redis.
-- KEYS: the profile. ARGV: the generation it was asked in, when (ms since 1970), what it said, how long that is kept (ms).
-- Answers the generation that the profile is in: another one than ARGV[1] means that nothing was kept.
local generation, fetched_at = '0', '0'
local held = redis.call('GET', KEYS[1])
if held then
    local held_generation, held_at = string.match(held, '^(%d+) (%d+) ')
    generation, fetched_at = held_generation or generation, held_at or fetched_at
end
if not held and ARGV[3] == 'null' then
    return generation
end
if generation == ARGV[1] and tonumber(fetched_at) <= tonumber(ARGV[2]) then
    redis.call('SET', KEYS[1], generation .. ' ' .. ARGV[2] .. ' ' .. ARGV[3], 'PX', ARGV[4])
end
return generation
