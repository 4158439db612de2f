# Ruby's Net::HTTP in one session, repeated by the app. It repeats by itself
# (max_retries) what HTTP calls idempotent, so no POST.
require 'net/http'

uri = URI(ENV['CLIENT_URL'] + ENV['CLIENT_PATH'])
headers = { 'Authorization' => "Bearer #{ENV['CLIENT_TOKEN']}", 'Content-Type' => 'application/json' }
headers['Idempotency-Key'] = ENV['CLIENT_KEY'] unless ENV['CLIENT_KEY'].empty?
result = ''
http = Net::HTTP.new(uri.host, uri.port, nil)
http.read_timeout = ENV['CLIENT_TIMEOUT'].to_f
http.start
http.get('/api/v2/users/me', headers) unless ENV['CLIENT_WARM'].empty?
ENV['CLIENT_TRIES'].to_i.times do
  begin
    answer = http.post(uri.path, ENV['CLIENT_BODY'], headers)
    result = "#{answer.code}\n#{answer.body}"
    break if answer.code.to_i < 500
  rescue IOError, SystemCallError, Timeout::Error => e
    result = "error #{e.class} #{e.message}"
  end
end
puts result
