# Perl's LWP with kept connections, repeated by the app.
use strict;
use warnings;
use LWP::UserAgent;

my $agent = LWP::UserAgent->new(keep_alive => 1, timeout => $ENV{CLIENT_TIMEOUT});
$agent->default_header(Authorization => "Bearer $ENV{CLIENT_TOKEN}");
$agent->get("$ENV{CLIENT_URL}/api/v2/users/me") if $ENV{CLIENT_WARM};
my @headers = ('Content-Type' => 'application/json');
push @headers, 'Idempotency-Key' => $ENV{CLIENT_KEY} if $ENV{CLIENT_KEY};

my $result = '';
for (1 .. $ENV{CLIENT_TRIES}) {
	my $answer = $agent->post("$ENV{CLIENT_URL}$ENV{CLIENT_PATH}", @headers, Content => $ENV{CLIENT_BODY});
	# What goes wrong on the way LWP tells as a 500 of its own.
	my $own = ($answer->header('Client-Warning') // '') eq 'Internal response' || $answer->header('Client-Aborted') || $answer->header('X-Died');
	$result = $own ? 'error ' . ($answer->header('X-Died') // $answer->message) : $answer->code . "\n" . $answer->decoded_content;
	last if !$own && $answer->code < 500;
}
print "$result\n";
