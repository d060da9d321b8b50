<?php
// Strings, arrays, sort, regular expressions, JSON, objects.
$scale = (int) $argv[1];
mt_srand(42);
function digest(string $text): string { return substr(hash('sha256', $text), 0, 16); }

$table = [];
$items = [];
$removed = 0;
for ($i = 0; $i < 100000 * $scale; $i++) {
    $table['key' . mt_rand(0, 4000)] = str_repeat('v', mt_rand(0, 600));
    $items[] = str_repeat('x', mt_rand(0, 3000)) . $i;
    if (count($items) > 1000) $removed += strlen(array_pop($items)) + strlen(array_shift($items));
}
ksort($table);
echo 'churn ', count($table), ' ', $removed, ' ', digest(serialize($table)), "\n";
sort($items);
echo 'sort ', digest(implode('', $items)), "\n";
$text = implode(' ', array_map(fn ($n) => (string) ($n * 7919 % 20011), range(1, 30000)));
echo 'regexp ', digest(preg_replace('/(\d)(\d)/', '$2$1', $text)), ' ', preg_match_all('/\b7\d+/', $text), "\n";
$data = array_map(fn ($n) => ['id' => $n, 'name' => str_repeat('é', $n % 30), 'list' => [$n, null, $n / 4]], range(1, 10000));
echo 'json ', digest(json_encode($data)), ' ', json_decode(json_encode($data), true) == $data ? 'same' : 'different', "\n";
$grown = '';
for ($i = 0; $i < 200000; $i++) $grown .= chr(97 + $i % 26);
echo 'grown ', digest($grown), "\n";
for ($i = 0; $i < 50000; $i++) {
    $node = new stdClass;
    $node->self = $node;
}
unset($node);
gc_collect_cycles();
echo 'done ', unserialize(serialize($items)) === $items ? 'same' : 'different', "\n";
