import java.nio.ByteBuffer;
import java.util.*;
import java.util.stream.*;
import java.util.zip.*;

/** The JVM uses malloc for its compilers, zip streams and direct buffers: use those, in several threads. */
public class Work {
    static long work(int seed) throws Exception {
        Random random = new Random(seed);
        long sum = 0;
        for (int turn = 0; turn < 300; turn++) {
            ByteBuffer buffer = ByteBuffer.allocateDirect(random.nextInt(200_000) + 8);
            buffer.putLong(0, turn);
            byte[] plain = new byte[random.nextInt(50_000) + 1];
            random.nextBytes(plain);
            Deflater deflater = new Deflater(1 + turn % 9);
            deflater.setInput(plain);
            deflater.finish();
            byte[] packed = new byte[plain.length + 1000];
            int length = deflater.deflate(packed);
            deflater.end();
            Inflater inflater = new Inflater();
            inflater.setInput(packed, 0, length);
            byte[] again = new byte[plain.length];
            inflater.inflate(again);
            inflater.end();
            if (!Arrays.equals(plain, again)) throw new AssertionError("turn " + turn);
            CRC32 crc = new CRC32();
            crc.update(again);
            sum += crc.getValue() + buffer.getLong(0);
        }
        return sum;
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println(IntStream.range(0, 8).parallel().mapToObj(n -> {
            try {
                return Long.toHexString(work(n));
            } catch (Exception error) {
                throw new RuntimeException(error);
            }
        }).collect(Collectors.joining(" ")));
        Map<String, List<Integer>> groups = IntStream.range(0, 300_000).boxed()
            .collect(Collectors.groupingBy(n -> "group" + n % 1009, TreeMap::new, Collectors.toList()));
        System.out.println(groups.size() + " " + groups.hashCode());
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 200; i++) {
            Thread thread = new Thread(() -> new byte[1000].clone());
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) thread.join();
        System.out.println("threads " + threads.size());
    }
}
