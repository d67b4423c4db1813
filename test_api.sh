#!/usr/bin/env bash
# Walks every endpoint of a running service with curl, and stops at the first wrong answer.
#   ./test_api.sh [http://localhost:8000]        INSIGHTS_API_KEY=... where it asks for a key (scopes ingest, read, admin)
# Prints a line per answer and ends with their number. Exit code: 0 all as they should be, 1 one is not, 4 nobody answers.
# It stores about ten conversations, under names that no other run uses; it removes nothing.
set -u
url=${1:-http://localhost:8000}
url=${url%/}
run="api-test-$(date +%s)-$$"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 words='' status='' body=''
json=(-H 'Content-Type: application/json')
key=(-H "X-API-Key: ${INSIGHTS_API_KEY:-none}")

fail() { # fail REASON
  echo "FAIL  $words: $1"
  echo "      status $status, answer: $(printf '%s' "$body" | cut -c 1-600)"
  exit 1
}

request() { # request METHOD PATH [CURL OPTIONS]
  local method=$1 path=$2
  shift 2
  status=$(curl --silent --show-error --noproxy '*' --max-time 30 -X "$method" "${key[@]}" "$@" \
    --dump-header "$work/headers" --output "$work/body" --write-out '%{http_code}' "$url$path") || { status=none; : >"$work/body"; }
  body=$(cat "$work/body")
}

expect() { # expect WORDS STATUS METHOD PATH [CURL OPTIONS]
  words=$1
  local wanted=$2
  shift 2
  request "$@"
  [[ $status == "$wanted" ]] || fail "the status should be $wanted"
  if [[ $wanted == 4* ]]; then
    grep -qi '^content-type: application/problem+json' "$work/headers" || fail 'an error should be application/problem+json'
    has '"error":' && has '"details":' || fail 'an error should have error and details'
  fi
  passed=$((passed + 1))
  echo "ok    $words"
}

has() { grep -qF -- "$1" "$work/body"; }
holds() { # holds TEXT...: the answer just had contains each
  local text
  for text in "$@"; do has "$text" || fail "it should contain $text"; done
}
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/body" | head -n 1; }
header() { grep -qi "^$1" "$work/headers" || fail "it should have the header $1"; }
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$work/body" | head -n 1; }

await_completed() { # await_completed ID
  local tries
  for tries in $(seq 120); do
    request GET "/api/v1/conversations/$1"
    has '"status":"completed"' && return
    has '"status":"failed"' && fail 'the analysis failed'
    sleep 0.25
  done
  fail "it should be completed within 30 s (looked $tries times)"
}

words='the service answers'
request GET /health
if [[ $status == none ]]; then
  echo "FAIL  nobody answers at $url: start the service with 'make run', or name its address: ./test_api.sh URL"
  exit 4
fi

# Operations
expect 'GET /health' 200 GET /health
holds '"status":"ok"' '"queue_size":' '"worker_running":true'
header 'x-request-id: '
expect 'GET /ready' 200 GET /ready
holds '"status":"ready"'
expect 'GET /openapi.json names the endpoints' 200 GET /openapi.json
holds '/api/v1/conversations' '/api/v1/conversations/bulk' '/api/v1/insights' '/api/v1/insights/trends'
expect 'GET /docs' 200 GET /docs
holds 'swagger'
grep -qE '(src|href)="https?://' "$work/body" && fail 'the page should need nothing from the internet'

# One conversation
text='Still waiting on my order, third week now'
one="{\"text\":\"$text\",\"author\":\"$run\",\"timestamp\":\"2025-01-20T11:00:00+01:00\",\"external_id\":\"$run-1\",\"raw_data\":{\"likes\":3}}"
expect 'POST a conversation' 202 POST /api/v1/conversations "${json[@]}" -d "$one"
holds '"status":"accepted"' '"message":"Conversation queued for analysis"'
id=$(value conversation_id)
[[ $id == conv_* ]] || fail 'the conversation_id should begin with conv_'
header "location: /api/v1/conversations/$id"
expect 'POST it again: the same conversation' 202 POST /api/v1/conversations "${json[@]}" -d "$one"
[[ $(value conversation_id) == "$id" ]] || fail "it should be $id"
expect 'POST other content under the same external_id' 409 POST /api/v1/conversations "${json[@]}" \
  -d "{\"text\":\"Other words\",\"external_id\":\"$run-1\"}"
holds '"error":"conflict"'
idempotent=(POST /api/v1/conversations "${json[@]}" -H "Idempotency-Key: $run-key")
expect 'POST with an Idempotency-Key' 202 "${idempotent[@]}" -d "{\"text\":\"Thank you, great service\",\"author\":\"$run\"}"
second=$(value conversation_id)
expect 'POST it again with the same key: the same conversation' 202 "${idempotent[@]}" \
  -d "{\"text\":\"Thank you, great service\",\"author\":\"$run\"}"
[[ $(value conversation_id) == "$second" ]] || fail "it should be $second"
expect 'POST another body with the same key' 422 "${idempotent[@]}" -d '{"text":"Something else"}'
holds '"error":"idempotency_mismatch"'

# Errors of one conversation
bad() { # bad WORDS STATUS ERROR [CURL OPTIONS]
  local says=$1 wanted=$2 error=$3
  shift 3
  expect "POST $says" "$wanted" POST /api/v1/conversations "$@"
  holds "\"error\":\"$error\""
}
bad 'no text' 400 invalid_schema "${json[@]}" -d '{"author":"a"}'
holds '"details":"Missing required field: text"'
bad 'an empty text' 400 invalid_schema "${json[@]}" -d '{"text":"   "}'
bad '10,001 characters' 400 invalid_schema "${json[@]}" -d "{\"text\":\"$(printf '%010001d' 0)\"}"
bad 'a text that is a number' 400 invalid_schema "${json[@]}" -d '{"text":5}'
bad 'an unknown field' 400 invalid_schema "${json[@]}" -d '{"text":"Hello","colour":"red"}'
bad 'a time that is none' 400 invalid_schema "${json[@]}" -d '{"text":"Hello","timestamp":"yesterday"}'
bad 'what is no JSON' 400 invalid_schema "${json[@]}" -d '{"text":'
bad 'a form' 415 unsupported_media_type -d 'text=Hello'
head -c 2000000 /dev/zero | tr '\0' 'x' >"$work/large"
bad '2 MB' 413 body_too_large "${json[@]}" -H 'Expect:' --data-binary "@$work/large"

# Bulk
expect 'POST in bulk' 202 POST /api/v1/conversations/bulk "${json[@]}" \
  -d "{\"conversations\":[$one,{\"text\":\"Your app crashes every time I open it\",\"author\":\"$run\"},{\"text\":\"\"}]}"
holds '"accepted":1' '"duplicates":1' '"rejected":1' '"index":2' '"status":"invalid"'
printf '%s\n' "{\"text\":\"Where is my refund?\",\"author\":\"$run\"}" "{\"text\":\"I love the new app\",\"author\":\"$run\"}" >"$work/lines"
expect 'POST in bulk, an object a line' 202 POST /api/v1/conversations/bulk -H 'Content-Type: application/x-ndjson' \
  --data-binary "@$work/lines"
holds '"accepted":2' '"rejected":0'
expect 'POST in bulk, nothing valid' 400 POST /api/v1/conversations/bulk "${json[@]}" -d '{"conversations":[{"text":""},{}]}'
holds '"error":"invalid_schema"' '"results":'
expect 'POST in bulk, nothing at all' 400 POST /api/v1/conversations/bulk "${json[@]}" -d '{"conversations":[]}'
printf '{"conversations":[%s{}]}' "$(printf '{},%.0s' $(seq 500))" >"$work/many"
expect 'POST 501 in bulk' 400 POST /api/v1/conversations/bulk "${json[@]}" --data-binary "@$work/many"
holds '500'

# Reading conversations
words='the conversation is analyzed'
await_completed "$id"
await_completed "$second"
expect 'GET one conversation, analyzed' 200 GET "/api/v1/conversations/$id"
holds "\"text\":\"$text\"" '"timestamp":"2025-01-20T10:00:00Z"' '"likes":3' '"insight":{' '"sentiment_score":' '"clusters":['
expect 'GET a conversation that is not there' 404 GET /api/v1/conversations/conv_00000000000000000000000000000000
holds '"error":"not_found"'
expect 'GET a page of conversations' 200 GET '/api/v1/conversations?limit=1'
holds '"returned_count":1' '"conversation_id":'
following=$(value next_cursor)
[[ -n $following ]] || fail 'it should have a next_cursor'
expect 'GET the next page' 200 GET "/api/v1/conversations?limit=1&cursor=$following"
holds '"returned_count":1'
expect 'GET conversations by status' 200 GET '/api/v1/conversations?status=completed&limit=5'
holds '"status":"completed"'
expect 'GET conversations by a status that is none' 400 GET '/api/v1/conversations?status=lost'

# Retry
expect 'POST retry of a completed conversation' 409 POST "/api/v1/conversations/$id/retry"
holds '"error":"conflict"'
expect 'POST retry of a conversation that is not there' 404 POST /api/v1/conversations/conv_00000000000000000000000000000000/retry
expect 'POST retry of all that failed' 202 POST '/api/v1/conversations/retry?status=failed'
holds '"retried":'

# Insights
expect 'GET insights' 200 GET '/api/v1/insights?limit=5'
holds '"insights":[' '"grok_analysis":{' '"metadata":{' '"total_count":' '"returned_count":'
for tries in $(seq 120); do
  expect_all=$(curl -s --noproxy '*' "${key[@]}" "$url/api/v1/insights?author=$run")
  [[ $expect_all == *'"total_count":5'* ]] && break
  sleep 0.25
done
expect 'GET insights by author' 200 GET "/api/v1/insights?author=$run"
holds '"total_count":5' "\"author\":\"$run\""
expect 'GET insights, a page of two' 200 GET "/api/v1/insights?author=$run&limit=2"
holds '"total_count":5' '"returned_count":2'
header 'link: .*rel="next"'
following=$(value next_cursor)
expect 'GET the next two' 200 GET "/api/v1/insights?author=$run&limit=2&cursor=$following"
holds '"total_count":5' '"returned_count":2'
expect 'GET insights by time' 200 GET "/api/v1/insights?author=$run&start_time=2025-01-20T10:00:00Z&end_time=2025-01-20T10:00:01Z"
holds '"total_count":1' "\"conversation_id\":\"$id\""
expect 'GET insights until that moment, which is left out' 200 GET "/api/v1/insights?author=$run&end_time=2025-01-20T10:00:00Z"
holds '"total_count":0' '"insights":[]'
counted=0
for sentiment in positive neutral negative; do
  expect "GET $sentiment insights" 200 GET "/api/v1/insights?author=$run&sentiment=$sentiment"
  counted=$((counted + $(number total_count)))
done
[[ $counted == 5 ]] || fail "the three should add up to 5, not $counted"
expect 'GET insights by confidence' 200 GET "/api/v1/insights?author=$run&min_confidence=0"
holds '"total_count":5'
expect 'GET insights by topic' 200 GET "/api/v1/insights?author=$run&topic=no_such_topic"
holds '"total_count":0'
for query in 'limit=0' 'limit=1001' 'min_confidence=2' 'sentiment=angry' 'start_time=yesterday' 'cursor=nonsense' 'colour=red' \
  'start_time=2025-01-21T00:00:00Z&end_time=2025-01-20T00:00:00Z'; do
  expect "GET insights with $query" 400 GET "/api/v1/insights?$query"
  holds '"error":"invalid_schema"'
done

# Trends
expect 'GET trends' 200 GET '/api/v1/insights/trends'
holds '"period":{' '"previous_period":{' '"bucket":"day"' '"tz":"UTC"' '"totals":{' '"change":{' '"driver":' '"topics":[' '"buckets":['
[[ $(grep -o '"negative_share":' "$work/body" | wc -l) -ge 7 ]] || fail 'it should have a bucket for each of seven days'
expect 'GET trends by hour, somewhere else' 200 GET \
  '/api/v1/insights/trends?start_time=2025-01-20T10:00:00Z&end_time=2025-01-20T12:00:00Z&bucket=hour&tz=America/New_York'
holds '"bucket":"hour"' '"tz":"America/New_York"' '"start_time":"2025-01-20T11:00:00Z","end_time":"2025-01-20T12:00:00Z"'
has '"topics":[]' && fail 'it should count the conversation of that hour'
expect 'GET trends of a topic' 200 GET '/api/v1/insights/trends?days=1&topic=no_such_topic'
holds '"topic":"no_such_topic"' '"totals":{"count":0,' '"mean_sentiment":null'
for query in 'days=0' 'days=367' 'bucket=week' 'tz=Mars/Base' 'start_time=2025-01-21T00:00:00Z&end_time=2025-01-20T00:00:00Z' \
  'start_time=2001-01-01T00:00:00Z' 'colour=red'; do
  expect "GET trends with $query" 400 GET "/api/v1/insights/trends?$query"
  holds '"error":"invalid_schema"'
done

# Live
words='GET two seconds of the live stream' status='' body=''
curl --silent --no-buffer --noproxy '*' --max-time 2 "${key[@]}" -H 'Last-Event-ID: 0' "$url/api/v1/events" >"$work/body" # no end of its own
holds 'retry: 2000' 'event: status' '"worker_running":' 'event: insight' '"grok_analysis":{'
passed=$((passed + 1))
echo "ok    $words"
expect 'GET the live stream after an event that is none' 400 GET /api/v1/events -H 'Last-Event-ID: yesterday'

# Topics
expect 'GET topics' 200 GET '/api/v1/topics'
holds '"id":"other"' '"listed":true' '"negative_share":' '"totals":{"insights":' '"untagged":{"count":' '"unlisted_labels":'
expect 'GET topics of that hour' 200 GET '/api/v1/topics?start_time=2025-01-20T10:00:00Z&end_time=2025-01-20T11:00:00Z'
holds '"period":{"start_time":"2025-01-20T10:00:00Z","end_time":"2025-01-20T11:00:00Z"}'
has '"insights":0' && fail 'it should count the conversation of that hour'
for query in 'days=7' 'start_time=soon' 'start_time=2025-01-21T00:00:00Z&end_time=2025-01-20T00:00:00Z'; do
  expect "GET topics with $query" 400 GET "/api/v1/topics?$query"
  holds '"error":"invalid_schema"'
done

# Words, facets, files
expect 'GET insights by words' 200 GET "/api/v1/insights?author=$run&q=%22third+week%22+order*"
holds '"snippet":"' '<mark>' "\"conversation_id\":\"$id\""
expect 'GET insights by words that are none' 400 GET '/api/v1/insights?q=%22%22'
expect 'GET facets' 200 GET "/api/v1/insights?author=$run&facet=topic,sentiment,author&limit=1"
holds '"facets":{' '"topic":[' '"sentiment":[' '"author":[' '"url":"/api/v1/insights?'
expect 'GET all as CSV' 200 GET "/api/v1/insights?author=$run&format=csv"
header 'content-type: text/csv'
header 'content-disposition: attachment; filename="insights-'
header 'x-total-count: 5'
[[ $(grep -c "$run" "$work/body") == 5 ]] || fail 'it should have five rows'
expect 'GET all as lines of JSON' 200 GET "/api/v1/insights?author=$run" -H 'Accept: application/x-ndjson'
[[ $(wc -l <"$work/body") == 5 ]] || fail 'it should have five lines'

# Corrections and quality
correction="/api/v1/conversations/$id/correction"
expect 'PUT a correction' 200 PUT "$correction" "${json[@]}" -d '{"sentiment":"positive","topics":["praise"],"note":"irony"}'
holds '"sentiment":"positive"' '"topics":["praise"]' '"original":{'
expect 'GET it corrected' 200 GET "/api/v1/conversations/$id"
holds '"sentiment_score":0.55' '"corrected":true' '"correction":{'
expect 'PUT a topic that is none' 400 PUT "$correction" "${json[@]}" -d '{"topics":["no_such_topic"]}'
expect 'GET the quality' 200 GET /api/v1/quality
holds '"agreement":{' '"confusion":{' '"calibration":[' '"micro_f1":'
expect 'DELETE the correction' 204 DELETE "$correction"
expect 'DELETE it again' 404 DELETE "$correction"

# Reading again
expect 'POST a reanalysis, dry' 200 POST "/api/v1/reanalyze?author=$run&dry_run=true"
holds '"status":"dry_run"' '"conversations":5' '"estimated_usd":' '"basis":"'
expect 'POST a reanalysis' 202 POST "/api/v1/reanalyze?author=$run"
holds '"status":"accepted"' '"reanalysis_id":'
order=$(number reanalysis_id)
for tries in $(seq 120); do
  request GET /api/v1/reanalyses
  has "\"reanalysis_id\":$order" && ! has '"ended_at":null' && break
  sleep 0.25
done
holds "\"reanalysis_id\":$order" '"requeued":'
expect 'DELETE a reanalysis that has ended' 409 DELETE "/api/v1/reanalyses/$order"
await_completed "$id"

# Erasing
expect 'DELETE one conversation' 200 DELETE "/api/v1/conversations/$id"
holds '"status":"erased"' '"conversations":1' '"insights":1'
expect 'GET what is erased' 404 GET "/api/v1/conversations/$id"
expect 'DELETE all of an author' 200 DELETE "/api/v1/conversations?author=$run"
holds '"status":"erased"'
expect 'GET what is left of the author' 200 GET "/api/v1/insights?author=$run"
holds '"total_count":0'
expect 'DELETE of nobody' 400 DELETE /api/v1/conversations

# The operator's view
expect 'GET the summary' 200 GET /status/summary
holds '"counts":{' '"breaker":"' '"cost_usd":' '"budget":{' '"savings":{' '"canary_agreement":{'
expect 'GET the metrics' 200 GET /metrics
holds 'insights_requests_total{' 'insights_grok_calls_total ' 'insights_processing_queue_depth '

# Paths and methods
expect 'GET what is not there' 404 GET /api/v1/nothing
holds '"error":"not_found"'
expect 'PUT where only POST and GET are taken' 405 PUT /api/v1/conversations
holds '"error":"method_not_allowed"'
expect 'a request id of the sender comes back' 200 GET /health -H "X-Request-ID: $run"
header "x-request-id: $run"

echo "All $passed answers are as they should be."
