-- Begins a new generation of a profile: what is kept is no longer current, and what was asked for before isn't kept.
-- KEYS: the profile. ARGV: how long that is remembered of a profile that isn't kept (ms).
-- Answers the new generation.
local generation, said = 0, ''
local held = redis.call('GET', KEYS[1])
if held then
    local held_generation, held_said = string.match(held, '^(%d+) %d+ (.*)$')
    generation, said = tonumber(held_generation) or 0, held_said or ''
end
local kept = math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[1]))
local next = string.format('%.0f', generation + 1)
redis.call('SET', KEYS[1], next .. ' 0 ' .. said, 'PX', string.format('%.0f', kept))
return next
