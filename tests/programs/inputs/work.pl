# Strings, hashes, sort, regular expressions, fork and threads (where perl has them).
use strict;
use warnings;
use Config;
use Digest::SHA qw(sha256_hex);

my $scale = shift;
my $state = 42;
sub next_random { $state = ($state * 1103515245 + 12345) % 2147483648; return int($state / 65536) % shift; }
sub digest { return substr(sha256_hex(join("\0", @_)), 0, 16); }

sub churn {
    my ($turns) = @_;
    my (%table, @items);
    my $removed = 0;
    for my $i (1 .. $turns) {
        $table{"key" . next_random(4000)} .= "x" x next_random(40);
        push @items, "v" x next_random(800);
        $removed += length splice(@items, next_random(scalar @items), 1) if @items > 1000;
        delete $table{"key" . next_random(4000)} if $i % 3 == 0;
    }
    return join " ", scalar(keys %table), scalar(@items), $removed, digest(map { "$_=$table{$_}" } sort keys %table);
}

print "churn ", churn(60000 * $scale), "\n";
my @lines = map { join " ", map { next_random(100000) } 1 .. 1 + next_random(20) } 1 .. 20000;
print "sort ", digest(sort @lines), " ", digest(sort { length $a <=> length $b || $a cmp $b } @lines), "\n";
my $text = join "\n", @lines;
(my $swapped = $text) =~ s/(\d+) (\d+)/$2 $1/g;
print "regexp ", digest($swapped), " ", scalar(() = $text =~ /\b(\d)\d*\1\b/g), "\n";
my $grown = "";
$grown .= chr(97 + $_ % 26) x ($_ % 100) for 1 .. 20000;
print "grown ", length $grown, " ", digest($grown), "\n";
my $tree;
for (1 .. 50000) {
    my $node = \$tree;
    my $value = next_random(1000000);
    $node = $value < $$node->{value} ? \$$node->{left} : \$$node->{right} while $$node;
    $$node = { value => $value };
}
sub depth { my $n = shift or return 0; my ($l, $r) = (depth($n->{left}), depth($n->{right})); return 1 + ($l > $r ? $l : $r); }
print "tree ", depth($tree), "\n";
undef $tree;
for my $child (1 .. 8) {
    my $pid = open(my $pipe, "-|") // die "fork: $!";
    if (!$pid) { print churn(3000 + $child), "\n"; exit $child; }
    print "child ", <$pipe>;
    close $pipe;
    print "status ", $? >> 8, "\n";
}
if ($Config{useithreads}) {
    require threads;
    my @threads = map { my $n = $_; threads->create(sub { $state = $n; return churn(5000) }) } 1 .. 4;
    print "thread ", $_->join, "\n" for @threads;
}
