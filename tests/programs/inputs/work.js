// Buffers, JSON, strings, zlib, worker threads and children. Prints only what does not depend on time or addresses.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { execFileSync, fork } = require('child_process');
const crypto = require('crypto');
const zlib = require('zlib');

function digest(data) {
  return crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);
}

function random(seed) {
  let state = seed >>> 0 || 1;
  return (limit) => {
    state ^= state << 13; state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5; state >>>= 0;
    return state % limit;
  };
}

// Buffers of many sizes, some kept for a while.
function buffers(seed, turns) {
  const next = random(seed);
  const kept = new Array(500).fill(null);
  const hash = crypto.createHash('sha256');
  for (let i = 0; i < turns; i++) {
    const slot = next(kept.length);
    if (kept[slot]) hash.update(kept[slot].subarray(0, 64));
    kept[slot] = Buffer.alloc(next(20000) + 1, i & 255);
    if (i % 500 === 0) kept[slot] = Buffer.concat(kept.filter(Boolean).slice(0, 40));
  }
  return hash.digest('hex').slice(0, 16);
}

async function main(scale) {
  console.log('buffers', buffers(1, 20000 * scale));
  const data = Array.from({ length: 20000 }, (_, i) => ({ id: i, name: 'n'.repeat(i % 90), list: [i, i / 3, null] }));
  const text = JSON.stringify(data);
  console.log('json', digest(text), digest(JSON.stringify(JSON.parse(text))));
  const map = new Map();
  for (let i = 0; i < 200000 * scale; i++) map.set(`k${i % 30000}`, `v${i}`);
  console.log('map', map.size, map.get('k77'));
  console.log('sort', digest(data.map((d) => d.name + d.id).sort().join()));
  console.log('regexp', text.match(/"id":(\d+)5,/g).length);

  const workers = [1, 2, 3, 4].map((seed) => new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: { seed, turns: 4000 * scale } });
    worker.on('message', resolve);
    worker.on('error', reject);
  }));
  console.log('workers', (await Promise.all(workers)).join(' '));

  // zlib, key derivation and files on libuv's thread pool.
  const squeezed = await Promise.all([1, 2, 3, 4, 5, 6].map((i) => new Promise((resolve, reject) => {
    zlib.gzip(text.slice(0, i * 100000), { level: i }, (error, result) => error ? reject(error) : resolve(result));
  })));
  console.log('gzip', squeezed.map((b) => digest(zlib.gunzipSync(b))).join(' '));
  const keys = await Promise.all([1, 2, 3, 4].map((i) => new Promise((resolve, reject) => {
    crypto.scrypt(`password${i}`, 'salt', 64, { N: 4096 }, (error, key) => error ? reject(error) : resolve(digest(key)));
  })));
  console.log('scrypt', keys.join(' '));

  for (let i = 0; i < 3; i++) {
    console.log('child', execFileSync(process.execPath, ['-e', `process.stdout.write(String(${i} + 1).repeat(10))`]).toString());
  }
  const reply = await new Promise((resolve) => {
    const child = fork(__filename, ['child']);
    child.on('message', resolve);
    child.send({ text: text.slice(0, 500000) });
  });
  console.log('forked', reply);
  const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100,
    100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]);
  console.log('wasm', (await WebAssembly.instantiate(bytes)).instance.exports.add(40, 2));
}

if (!isMainThread) {
  parentPort.postMessage(buffers(workerData.seed, workerData.turns));
} else if (process.argv[2] === 'child') {
  process.on('message', (message) => {
    process.send(digest(message.text), () => process.disconnect());
  });
} else {
  main(Number(process.argv[2])).catch((error) => { console.error(error); process.exit(1); });
}
